"""A request's text depends on nothing but the request: the compiled runner under everything that may happen to one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deepseek import AutoModel
from deepseek.config import ModelConfig
from deepseek.engine.engine import Engine
from deepseek.engine.engine_config import EngineConfig
from deepseek.engine.loading import block_bytes, load_runner
from deepseek.engine.outputs import Generation, RequestMetrics, Sample
from deepseek.sampling import SamplingParams
from model_cases import CASES

SHARED = [(5 * place * place + 3) % 67 for place in range(34)]
PROMPTS = [
    [1, 2, 3], [*SHARED, 7], [*SHARED, 8, 9], [11] * 33, [4, 6, 4, 6, 4, 6], SHARED[:32],
    *([place, 13, 17, 19] for place in range(10)),
]  # fmt: skip
PARAMS = [
    SamplingParams(max_tokens=40, temperature=0, ignore_eos=True),
    SamplingParams(max_tokens=40, temperature=1.0, top_p=0.95, seed=4, ignore_eos=True),
    SamplingParams(max_tokens=24, temperature=0.8, seed=4, frequency_penalty=0.7, n=2),
]
ALONE = {"threads": 1, "max_num_seqs": 1, "enable_prefix_caching": False, "max_decode_steps": 1}
WAYS: dict[str, dict[str, Any]] = {
    "two threads": {**ALONE, "threads": 2},
    "together": {"enable_prefix_caching": False},
    "prefix cache": {},
    "guesses": {"speculation": "always", "max_num_seqs": 5},
    "pieces": {"max_num_batched_tokens": 19, "max_decode_steps": 1},
    "few blocks": {"speculation": "always", "blocks": 5},
}
HAPPENED: dict[str, Any] = {
    "prefix cache": lambda metrics: metrics.cached_tokens,
    "guesses": lambda metrics: metrics.accepted_tokens,
    "few blocks": lambda metrics: metrics.preemptions,
}


def answers(
    folder: Path, config: ModelConfig, *, blocks: int = 60, **settings: Any
) -> tuple[list[list[Sample]], list[RequestMetrics]]:
    """The samples of every prompt with all parameters, and of a second turn after the first answers."""
    common = {"speculation": "off", "threads": 2, "max_num_seqs": 16, "max_num_batched_tokens": 64}
    merged = {"quantize": "int8", "activation_bits": 8, **common, **settings}
    nbytes = blocks * block_bytes(config, EngineConfig(**merged).cache_code_bytes)
    engine_config = EngineConfig(kv_cache_bytes=nbytes, **merged)
    with Engine(load_runner(folder, engine_config), None, engine_config) as engine:
        results: list[Generation] = []
        for params in PARAMS:
            some = engine.generate(PROMPTS, params)
            assert isinstance(some, list)
            results += some
        turns = [prompt + result.token_ids + [1, 2] for prompt, result in zip(PROMPTS, results, strict=False)]
        again = engine.generate(turns, PARAMS[1])
        assert isinstance(again, list)
        results += again
    return [result.samples for result in results], [result.metrics for result in results]


@pytest.mark.parametrize(
    ("name", "cache"),
    [("qwen2-window", "f16"), ("v2-lite", "f16"), ("v32", "f16"), ("qwen2-window", "int8"), ("v32", "int8")],
)
def test_the_text_is_the_same_however_it_is_run(name: str, cache: str, tmp_path: Path) -> None:
    config = replace(CASES[name], num_nextn_predict_layers=0)
    AutoModel.from_config(config, seed=3, std=0.3).save_pretrained(tmp_path)
    expected, _ = answers(tmp_path, config, **ALONE, kv_cache_dtype=cache)
    assert len({tuple(samples[0].token_ids) for samples in expected}) > len(expected) // 2
    for way, settings in WAYS.items():
        found, metrics = answers(tmp_path, config, **settings, kv_cache_dtype=cache)
        wrong = [place for place, (one, other) in enumerate(zip(found, expected, strict=True)) if one != other]
        assert not wrong, f"{way}: requests {wrong} differ"
        assert way not in HAPPENED or any(map(HAPPENED[way], metrics)), f"{way}: did not happen"
