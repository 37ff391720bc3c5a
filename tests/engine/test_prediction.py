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

EMBEDDING_SCALE = 60.0


def random_model(config: ModelConfig) -> Model:
    """With no weight at its default, prediction layers included."""
    model = AutoModel.from_config(config, seed=4, std=0.3).eval()  # v32's indexer has no ties within rounding there
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def predicting_model(config: ModelConfig) -> Model:
    """Its embeddings outweigh what the layers add, so that a token nearly decides the next one, and its prediction
    layers read the embedding as the model does: many of their guesses are right, not all.
    """
    model = random_model(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(EMBEDDING_SCALE)
        for layer in model.prediction_layers:
            assert isinstance(layer, PredictionLayer)
            layer.enorm.weight.fill_(0.3 * EMBEDDING_SCALE)
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
@pytest.mark.parametrize("name", ["v3", "v3-half-split", "v32"])
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


SHARED = [(5 * place * place + 3) % 67 for place in range(34)]
PROMPTS = [
    [1, 2, 3], [*SHARED, 7], [*SHARED, 8, 9], [11] * 33, SHARED[:32], SHARED[:31], [9],
    *([place, 13, 17, 19] for place in range(6)),
]  # fmt: skip
PARAMS = [
    SamplingParams(max_tokens=40, temperature=0, ignore_eos=True),
    SamplingParams(max_tokens=40, temperature=0.3, top_p=0.95, seed=4, ignore_eos=True),
    SamplingParams(max_tokens=24, temperature=0.8, seed=4, frequency_penalty=0.7, n=3),
]
ALONE = {"threads": 1, "max_num_seqs": 1, "enable_prefix_caching": False, "speculation": "off", "max_decode_steps": 1}
WAYS: dict[str, dict[str, Any]] = {
    "alone": {"max_num_seqs": 1, "threads": 1, "enable_prefix_caching": False},
    "together": {"enable_prefix_caching": False},
    "prefix cache": {},
    "auto": {"speculation": "auto", "max_num_seqs": 1},
    "pieces": {"max_num_batched_tokens": 19},
    "few blocks": {"blocks": 6},
}
HAPPENED: dict[str, Any] = {
    "prefix cache": lambda metrics: metrics.cached_tokens,
    "few blocks": lambda metrics: metrics.preemptions,
}


def answers(folder: Path, config: ModelConfig, *, blocks: int = 60, **settings: Any) -> list[Generation]:
    """For every prompt with all parameters, and for a second turn after the first answers."""
    common = {"speculation": "always", "threads": 2, "max_num_seqs": 16, "max_num_batched_tokens": 64}
    settings = {**common, **settings}
    predicts = settings["speculation"] != "off"
    engine_config = EngineConfig(
        quantize="int8",
        activation_bits=8,
        kv_cache_bytes=blocks * block_bytes(config, 2, predicts=predicts),
        **settings,
    )
    with Engine(load_runner(folder, engine_config), None, engine_config) as engine:
        results: list[Generation] = []
        for params in PARAMS:
            some = engine.generate(PROMPTS, params)
            assert isinstance(some, list)
            results += some
        turns = [prompt + result.token_ids + [1, 2] for prompt, result in zip(PROMPTS, results, strict=False)]
        again = engine.generate(turns, PARAMS[1])
        assert isinstance(again, list)
        scheduler = engine._core._scheduler
        assert scheduler.blocks.pool.n_free == scheduler.blocks.pool.n_blocks
    return results + again


@pytest.mark.parametrize(("name", "depth"), [("v3", 1), ("v3", 2), ("v32", 2)])
def test_no_text_is_changed_and_guesses_are_accepted(name: str, depth: int, tmp_path: Path) -> None:
    config = replace(CASES[name], num_nextn_predict_layers=depth)
    predicting_model(config).save_pretrained(tmp_path)
    expected = [result.samples for result in answers(tmp_path, config, **ALONE)]
    assert len({tuple(samples[0].token_ids) for samples in expected}) > len(expected) // 2
    for way, settings in WAYS.items():
        results = answers(tmp_path, config, **settings)
        wrong = [place for place, result in enumerate(results) if result.samples != expected[place]]
        assert not wrong, f"{way}: requests {wrong} differ"
        assert way not in HAPPENED or any(HAPPENED[way](result.metrics) for result in results), way
        drafted = sum(result.metrics.drafted_tokens for result in results)
        accepted = sum(result.metrics.accepted_tokens for result in results)
        assert drafted, way
        if way != "auto":  # which stops when it is measured not to pay
            assert 0.1 < accepted / drafted < 1, way


def test_without_prediction_layers_they_cannot_be_asked_for(tmp_path: Path) -> None:
    random_model(replace(CASES["v3"], num_nextn_predict_layers=0)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no MTP layers"):
        load_runner(tmp_path, EngineConfig(speculative_method="mtp"))
    assert load_runner(tmp_path, EngineConfig(kv_cache_bytes=1 << 16)).prediction_layers == 0


@pytest.mark.parametrize(
    ("settings", "layers"),
    [({}, 1), ({"speculative_method": "mtp"}, 1), ({"speculative_method": "ngram"}, 0), ({"speculation": "off"}, 0)],
)
def test_who_guesses(settings: dict[str, Any], layers: int, tmp_path: Path) -> None:
    random_model(replace(CASES["v3"], num_nextn_predict_layers=1)).save_pretrained(tmp_path)
    runner = load_runner(tmp_path, EngineConfig(kv_cache_bytes=1 << 16, **settings))
    assert runner.prediction_layers == layers
    assert runner.nbytes_a_block == block_bytes(runner.config, 2, predicts=layers > 0)
