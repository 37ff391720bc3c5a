"""One vocabulary for types of numbers, wherever a name of one is taken."""

import numpy as np
import pytest

from deepseek.checkpoint.packed.choose import quantize_named
from deepseek.engine.engine_config import EngineConfig
from deepseek.errors import ConfigError
from deepseek.number_types import number_type


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
