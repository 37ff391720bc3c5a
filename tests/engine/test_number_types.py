"""One vocabulary for types of numbers, wherever a name of one is taken."""

import numpy as np
import pytest

from deepseek.checkpoint.packed.choose import quantize_named
from deepseek.engine.engine_config import EngineConfig
from deepseek.errors import ConfigError
from deepseek.number_types import choice_of, number_type
from deepseek.server.server_config import ServerConfig
from deepseek.training.recipe import Recipe


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        *[(spelled, "bfloat16") for spelled in ("bf16", "bfloat16", "torch.bfloat16", "BF16")],
        *[(spelled, "float16") for spelled in ("f16", "fp16", "half", "float16", np.float16)],
        *[(spelled, "float32") for spelled in ("f32", "fp32", "float", "F32", np.float32)],
        *[(spelled, "int8") for spelled in ("int8", "q8_0", "Q8_0")],
        *[(spelled, "int4") for spelled in ("int4", "q4_0")],
        *[(spelled, None) for spelled in ("auto", "", "int3", None, 4)],
    ],
)
def test_spellings(spelled: object, name: str | None) -> None:
    assert number_type(spelled) == name


def test_a_choice_is_found_in_any_spelling() -> None:
    assert [choice_of(value, ("auto", "f16", "q8_0")) for value in ("half", "INT8", "auto", "bf16", None)] == [
        "f16", "q8_0", "auto", "bf16", None,
    ]  # fmt: skip


def test_the_server_takes_every_spelling() -> None:
    spelled = {"quantize": "torch.bfloat16", "kv_cache_dtype": "FP16"}
    config = ServerConfig.of({**spelled, "cache_type_k": "half", "cache_type_v": "float16"}, environment={})
    assert (config.quantize, config.kv_cache_dtype, config.cache_type_k) == ("bf16", "f16", "f16")
    assert ServerConfig.of({"cache_type_k": "int8", "cache_type_v": "q8"}, environment={}).cache_type_k == "q8_0"
    assert ServerConfig.of({}, environment={"DEEPSEEK_QUANTIZE": "Q4_0"}).quantize == "int4"
    with pytest.raises(ConfigError, match="quantize must be one of auto, int4"):
        ServerConfig.of({"quantize": "q3"}, environment={})


@pytest.mark.parametrize(("spelled", "name"), [("bf16", "bfloat16"), ("HALF", "float16"), ("torch.float32", "float32")])
def test_recipes_take_every_spelling(spelled: str, name: str) -> None:
    values = {"name": "a", "data": {"folder": "d"}, "model": {"size": 1}, "training": {"precision": spelled}}
    recipe = Recipe.from_dict(values)
    assert recipe.training.precision == name
    assert recipe.fingerprint() == Recipe.from_dict({**values, "training": {"precision": name}}).fingerprint()


def test_the_engine_takes_every_spelling() -> None:
    assert [EngineConfig(quantize=name).quantize for name in ("auto", "q4_0", "bfloat16", "fp32")] == [  # type: ignore[arg-type]
        "auto", "int4", "bf16", "f32",
    ]  # fmt: skip
    assert EngineConfig(kv_cache_dtype="q8_0").kv_cache_dtype == "int8"  # type: ignore[arg-type]
    for name, message in (
        ("q3", "not 'q3'"),
        ("half", "does not keep weights in fp16"),
        ("../x", "must be one of auto"),
    ):
        with pytest.raises(ConfigError, match=message):
            quantize_named(name)
