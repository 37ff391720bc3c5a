"""Prediction layers as drafters: the twin's guesses, nobody's text changed, some of them right, all memory returned."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from deepseek import AutoModel
from deepseek.checkpoint.packed import ensure_packed
from deepseek.config import ModelConfig
from deepseek.engine.batch import Batch, Chunk
from deepseek.engine.engine import Engine
from deepseek.engine.engine_config import EngineConfig
from deepseek.engine.loading import block_bytes, load_runner
from deepseek.engine.outputs import Generation
from deepseek.engine.runner import CpuRunner
from deepseek.errors import ConfigError
from deepseek.models.cache import GrowingTensor
from deepseek.models.decoder import Model, PredictionLayer
from deepseek.models.mtp import predict_layer
from deepseek.sampling import SamplingParams
from model_cases import CASES
from test_engine_families import sequence, token_ids


def random_model(config: ModelConfig) -> Model:
    """With no weight at its default, prediction layers included."""
    model = AutoModel.from_config(config, seed=3, std=0.3).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def predicting_model(config: ModelConfig) -> Model:
    """Its layers add little to the embedding, so that the last token nearly decides the next, and the prediction layers
    read their token's embedding as the model does: most of their guesses are right, not all.
    """
    model = random_model(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "o_proj.bias", "down_proj.weight", "down_proj.bias")):
                parameter.mul_(0.25)
        for layer in model.prediction_layers:
            assert isinstance(layer, PredictionLayer)
            layer.enorm.weight.fill_(1.0)
            layer.eh_proj.weight.copy_(torch.eye(config.hidden_size, 2 * config.hidden_size))
            layer.shared_head.norm.weight.copy_(model.model.norm.weight)
    return model


@pytest.fixture
def halves_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    append = GrowingTensor.append
    monkeypatch.setattr(GrowingTensor, "append", lambda self, new: append(self, new.half().float()))


@torch.no_grad()
def guesses_of_the_twin(model: Model, tokens: list[int]) -> list[int]:
    """Every prediction layer over the whole text, as `models.mtp` does it."""
    ids, drafts = list(tokens), []
    hidden = model(torch.tensor([tokens[:-1]]), cache=model.new_cache()).last_hidden_btm
    cache = model.new_cache()
    for layer in range(model.config.num_hidden_layers, model.config.num_hidden_layers + len(model.prediction_layers)):
        ids = ids[1:]
        hidden = predict_layer(model, layer, hidden.half().float(), torch.tensor([ids]), cache)
        drafts.append(int(model.head(hidden[:, -1]).argmax()))
        ids.append(drafts[-1])
    return drafts


@pytest.mark.usefixtures("halves_in_the_cache")
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("name", ["v3", "v3-half-split", "v32", "qwen2-window"])
def test_guesses_equal_the_twins(name: str, depth: int, tmp_path: Path) -> None:
    model = random_model(replace(CASES[name], num_nextn_predict_layers=depth))
    model.save_pretrained(tmp_path)
    runner = CpuRunner(
        ensure_packed(tmp_path, quantize="f32"), threads=2, kv_cache_bytes=1 << 20, max_model_len=96,
        max_tokens_per_step=64, max_sequences=4, predicts=True,
    )  # fmt: skip
    ids = token_ids(model.config.vocab_size)
    running, prompt = sequence(ids[:38], 37, [5, 2]), 37
    other = sequence(ids[10:31], 20, [7])
    runner.run(Batch([Chunk(running, 0, 20, "none")]))
    runner.run(Batch([Chunk(running, 20, 17, "last"), Chunk(other, 0, 20, "last")]))
    # The prompt's entries in two pieces, the second beside another sequence; then one token after another.
    runner.predict([Chunk(running, 0, 11, "none")])
    found = [runner.predict([Chunk(other, 0, 20, "last"), Chunk(running, 11, prompt - 11, "last")])[::-1]]
    assert len(running.token_ids) == 38
    for length in range(39, len(ids) + 1):
        running.token_ids = ids[:length]
        runner.run(Batch([Chunk(running, length - 2, 1, "last")]))
        start = length - 1 - depth
        found.append(runner.predict([Chunk(running, start, length - 1 - start, "last")]))
    assert found[0][1] == guesses_of_the_twin(model, ids[10:31])
    assert [drafts[0] for drafts in found] == [guesses_of_the_twin(model, ids[:n]) for n in range(38, len(ids) + 1)]
