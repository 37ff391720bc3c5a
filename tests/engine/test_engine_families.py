"""Every family in the engine beside the PyTorch reference: the same weights in float32, so only the order differs."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from deepseek import AutoModel
from deepseek.checkpoint.packed import ensure_packed
from deepseek.config import ModelConfig
from deepseek.engine.batch import Batch, Chunk
from deepseek.engine.engine_config import EngineConfig
from deepseek.engine.loading import load_runner
from deepseek.engine.runner import CpuRunner
from deepseek.errors import ConfigError
from deepseek.models.cache import GrowingTensor
from deepseek.models.decoder import Model
from model_cases import CASES

TOKENS, PROMPT = 45, 37  # more than a cache block; v32's indexer keeps 9 keys of them


def random_model(config: ModelConfig) -> Model:
    """With nothing at its default; without prediction layers, which the engine uses for guesses only."""
    model = AutoModel.from_config(replace(config, num_nextn_predict_layers=0), seed=3, std=0.3).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith("correction_bias"):
                buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))
    return model


def made(config: ModelConfig, folder: Path) -> tuple[Model, CpuRunner]:
    """A random model, and the same in the engine."""
    model = random_model(config)
    model.save_pretrained(folder)
    store = ensure_packed(folder, quantize="f32")
    return model, CpuRunner(
        store, threads=2, kv_cache_bytes=1 << 20, max_model_len=96, max_tokens_per_step=64, max_sequences=4
    )


def sequence(ids: list[int], prompt: int, blocks: list[int]) -> Any:
    return SimpleNamespace(token_ids=list(ids), n_prompt=prompt, block_table=blocks)


def token_ids(vocabulary: int) -> list[int]:
    return [(7 * place * place + 3 * place + 11) % vocabulary for place in range(TOKENS)]


@pytest.fixture
def halves_of_latents(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine keeps latents as halves; so does the reference here. Its keys and values are closer than that."""
    if CASES[name].mla is None:
        return
    append = GrowingTensor.append
    monkeypatch.setattr(GrowingTensor, "append", lambda self, new: append(self, new.half().float()))


@pytest.mark.usefixtures("halves_of_latents")
@pytest.mark.parametrize("name", CASES)
def test_prompt_and_cached_steps_equal_the_reference(name: str, tmp_path: Path) -> None:
    model, runner = made(CASES[name], tmp_path)
    ids = token_ids(model.config.vocab_size)
    with torch.no_grad():
        expected = model(torch.tensor([ids]), cache=model.new_cache()).logits[0].numpy()
    running = sequence(ids, PROMPT, [5, 2])
    logits = [runner.run(Batch([Chunk(running, 0, 20, "all")])).logits.copy()]
    logits.append(runner.run(Batch([Chunk(running, 20, PROMPT - 20, "all")])).logits.copy())
    for place in range(PROMPT, TOKENS):
        logits.append(runner.run(Batch([Chunk(running, place, 1, "last")])).logits.copy())
    found = np.concatenate(logits)
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-3  # what the cache rounds


@pytest.mark.parametrize("heads", [{"head_dim": 320}, {"num_attention_heads": 49, "num_key_value_heads": 1}])
def test_heads_without_room_are_refused(heads: dict[str, int], tmp_path: Path) -> None:
    random_model(replace(CASES["llama"], **heads)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="use --backend torch"):
        load_runner(tmp_path, EngineConfig())
