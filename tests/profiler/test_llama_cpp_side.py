"""llama.cpp as a side, where llama-cpp-python is installed (the extra `bench`): it computes what it is said to."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deepseek.models.auto import AutoModel
from deepseek.profiler import llama_cpp
from deepseek.profiler.llama_cpp import LlamaCpp
from deepseek.profiler.perplexity import losses_of
from deepseek.profiler.work import Work, prompt_ids
from synthetic_moe import write_synthetic
from test_synthetic_checkpoint import small

pytest.importorskip("llama_cpp")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama-cpp") / "small.gguf"
    write_synthetic(path, small())
    return path


def test_losses_are_those_of_the_weights(path: Path) -> None:
    """llama.cpp rounds activations to int8: its losses are near the reference's, and nowhere near another window's."""
    window = prompt_ids(64, 512)
    model = AutoModel.from_pretrained(path, dtype="float32", device="cpu")
    with torch.no_grad():
        logits = model(torch.tensor([window])).logits[0].numpy()
    expected = losses_of(logits[:-1], window[1:])
    losses = np.array(LlamaCpp(path, threads=1).losses(window))
    assert len(losses) == 63
    assert np.abs(losses - expected).max() < 0.3
    assert np.abs(losses[1:] - expected[:-1]).max() > 0.5


def test_every_kind_of_work(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "_LEAST_SECONDS", 1e-9)
    side = LlamaCpp(path, threads=1)
    for work in (
        Work(kind="prompt", context=40),
        Work(kind="decode", context=20, count=30),
        Work(kind="together", context=16, count=4, requests=3),
    ):
        side.tune(work)
        timing = side.run(work)
        assert timing.tokens % work.tokens == 0
        assert timing.seconds > 0
    assert side.facts()["threads"] == 1
