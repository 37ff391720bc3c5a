"""The arithmetic contract at work: a request's tokens are the same whatever happens around it (docs/decisions/010).

Tiny random models on the real kernels, dense and MoE, grouped-query and latent attention, 4-bit weights. Random weights
make logits lie close together, so a wrong bit anywhere soon changes a token.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepseek.engine.engine import Engine
from deepseek.engine.engine_config import EngineConfig
from deepseek.engine.loading import load_runner
from deepseek.sampling import SamplingParams
from model_cases import CASES
from test_engine_families import random_model

LENGTHS = (3, 11, 30, 33, 40, 5, 17, 28, 36, 9, 22, 31, 14, 38, 7, 26)
NEW_TOKENS = 24


@pytest.fixture(scope="module", params=["qwen2", "v2-lite", "v3", "v32"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp(request.param)
    random_model(CASES[request.param]).save_pretrained(place)
    return place


def prompts() -> list[list[int]]:
    """Some begin alike, so that they share cached blocks."""
    common = [(5 * place * place + place) % 67 for place in range(64)]
    return [
        common[:length] if number % 2 else [(number + place * 13) % 67 for place in range(length)]
        for number, length in enumerate(LENGTHS)
    ]


def params(temperature: float, new_tokens: int = NEW_TOKENS) -> SamplingParams:
    return SamplingParams(max_tokens=new_tokens, temperature=temperature, seed=7, ignore_eos=True)


def engine(folder: Path, **settings: Any) -> Engine:
    roomy = {"quantize": "int4", "threads": 2, "kv_cache_bytes": 8 << 20, "max_num_seqs": 16, "speculation": "off"}
    config = EngineConfig.of({**roomy, **settings})
    return Engine(load_runner(folder, config), None, config)


def texts(one: Engine, temperature: float) -> list[list[int]]:
    """All prompts at once."""
    answers = one.generate(prompts(), params(temperature))
    assert isinstance(answers, list)
    return [answer.token_ids for answer in answers]


def alone(folder: Path, temperature: float, new_tokens: int = NEW_TOKENS) -> list[list[int]]:
    """Each prompt by itself, one token a call, on one thread, without any cache."""
    settings = {"threads": 1, "enable_prefix_caching": False, "max_decode_steps": 1, "max_num_seqs": 1}
    with engine(folder, **settings) as one:
        return [one.generate(prompt, params(temperature, new_tokens)).token_ids for prompt in prompts()]


CIRCUMSTANCES: dict[str, dict[str, Any]] = {
    "a batch of 16": {},
    "one thread": {"threads": 1},
    "no prefix cache": {"enable_prefix_caching": False},
    "prompts in pieces": {"max_num_batched_tokens": 20},
    "a token a call": {"max_decode_steps": 1},
    "guesses": {"speculation": "always"},
    "3 sequences": {"max_num_seqs": 3, "max_num_batched_tokens": 24},
}


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_same_tokens_in_all_circumstances(folder: Path, temperature: float) -> None:
    expected = alone(folder, temperature)
    assert len({tuple(ids) for ids in expected}) > 8  # they do differ from each other
    for name, settings in CIRCUMSTANCES.items():
        with engine(folder, **settings) as one:
            assert texts(one, temperature) == expected, name
            assert texts(one, temperature) == expected, f"{name}, again"


def test_same_tokens_after_preemption(folder: Path) -> None:
    grows = 54  # by two cache blocks at least, of which one is set aside when a sequence is let in
    expected = alone(folder, 0.8, grows)
    block = load_runner(folder, EngineConfig(quantize="int4")).nbytes_a_block
    with engine(folder, kv_cache_bytes=6 * block, enable_prefix_caching=False) as one:
        answers = one.generate(prompts(), params(0.8, grows))
    assert isinstance(answers, list)
    assert [answer.token_ids for answer in answers] == expected
    assert sum(answer.metrics.preemptions for answer in answers) > 0


def test_routing_and_embeddings_beside_generation_are_those_of_a_request_alone(folder: Path) -> None:
    """Steps that hold generated tokens and prompts at once: each request gets its own rows of what they leave."""
    prompt, is_moe = prompts()[4], "qwen2" not in str(folder)
    small = {"max_num_batched_tokens": 20, "enable_prefix_caching": False, "max_decode_steps": 1}

    def asked(one: Engine) -> tuple[Any, Any]:
        answer = one.generate(prompt, params(0.0, 4), record_routing=True, priority=-1) if is_moe else None
        return answer, one.embed(prompt, priority=-1)  # which puts it before the other one

    with engine(folder, **small) as one:
        answer, vector = asked(one)
    with engine(folder, **small) as one, one.stream(prompts()[0], params(0.0, 200)) as stream:
        next(stream)
        beside, vector_beside = asked(one)
        assert next(stream).token_id is not None, "the other request has ended: nothing was beside"
    np.testing.assert_array_equal(vector_beside, vector)
    if answer is not None:
        routing, expected = beside.samples[0].routing, answer.samples[0].routing
        np.testing.assert_array_equal(routing.experts, expected.experts)
        np.testing.assert_array_equal(routing.weights, expected.weights)
