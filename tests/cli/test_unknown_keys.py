"""--allow-unknown-keys: every verb that loads a model takes it, and refuses or takes the same files."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from deepseek.checkpoint.configuration import load_config
from deepseek.cli.app import app
from deepseek.config import ModelConfig, RopeConfig
from deepseek.engine.engine_config import EngineConfig
from deepseek.engine.loading import load_runner
from deepseek.errors import ConfigError
from deepseek.models.auto import AutoModel

LOADING = {"serve", "chat", "generate", "batch", "bench", "perplexity", "verify", "pack", "convert", "info"}
LOADING |= {"carve", "train", "evaluate"}
OTHERS = {"models", "pull", "data"}

TINY = ModelConfig(
    family="llama",
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    rope=RopeConfig(theta=10000.0),
)


def commands() -> dict[str, Any]:
    return typer.main.get_command(app).commands  # type: ignore[attr-defined, no-any-return]


def test_every_verb_is_one_or_the_other() -> None:
    assert commands().keys() == LOADING | OTHERS


@pytest.mark.parametrize("verb", sorted(LOADING))
def test_verbs_that_load_a_model_take_the_flag(verb: str) -> None:
    (parameter,) = [each for each in commands()[verb].params if "--allow-unknown-keys" in each.opts]
    assert parameter.help.startswith("Load the model although its files ask for what this version does not compute")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a key that Transformers reads and this version does not compute."""
    monkeypatch.setenv("DEEPSEEK_CACHE", str(tmp_path / "cache"))
    AutoModel.from_config(TINY).save_pretrained(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "is_causal": False}))
    return config.parent


def test_the_flag_that_is_named_works(model: Path) -> None:
    runner = CliRunner()
    refused = runner.invoke(app, ["info", str(model / "config.json"), "--json"])
    assert isinstance(refused.exception, ConfigError)
    assert "--allow-unknown-keys" in str(refused.exception)
    told = runner.invoke(app, ["info", str(model / "config.json"), "--json", "--allow-unknown-keys"])
    assert json.loads(told.stdout)["config"]["hidden_size"] == TINY.hidden_size


def test_engine_and_pytorch_judge_alike(model: Path) -> None:
    engine = EngineConfig(threads=1, max_num_seqs=1, kv_cache_bytes=1 << 20)
    allowing = EngineConfig(threads=1, max_num_seqs=1, kv_cache_bytes=1 << 20, allow_unknown_keys=True)
    for _ in range(2):  # what was run before changes nothing
        for refuse in (
            lambda: load_runner(model, engine),
            lambda: AutoModel.from_pretrained(model, device="cpu"),
            lambda: load_config(model),
        ):
            with pytest.raises(ConfigError, match=r"is_causal is False.*allow_unknown_keys=True"):
                refuse()
        load_runner(model, allowing).close()
        AutoModel.from_pretrained(model, device="cpu", allow_unknown_keys=True)
