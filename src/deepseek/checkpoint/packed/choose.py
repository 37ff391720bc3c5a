"""In which packing a weight is stored, from the type of its source and the choice of the user (docs/decisions/009)."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from deepseek.checkpoint.packed.slots import Slot
from deepseek.config import ModelConfig
from deepseek.errors import ConfigError
from deepseek.families.sizes import model_size
from deepseek.number_types import choice_of, number_type
from deepseek.packing import Packing

Quantize = Literal["auto", "int4", "int8", "bf16", "f32"]
RowsType = Literal["f32", "f16", "bf16", "q4_0", "q4_1", "q8_0"]

INT8_BELOW = 4_000_000_000  # parameters of a model whose float weights `auto` keeps in int8

INT4 = Packing("int4", 32)
INT8 = Packing("int8", 32)

# GGUF's blocks that a packing holds with the same values (the K types: with scales rounded to fp16).
_SAME_4_BITS = {
    "Q4_0": Packing("int4", 32),
    "Q4_1": Packing("int4", 32, affine=True),
    "Q4_K": Packing("int4", 32, affine=True),
}
_SAME_8_BITS = {
    "Q8_0": Packing("int8", 32),
    "Q5_0": Packing("int8", 32),
    "Q5_1": Packing("int8", 32, affine=True),
    "Q5_K": Packing("int8", 32, affine=True),
}
_WIDENED = {"Q4_0": INT8, "Q4_1": Packing("int8", 32, affine=True), "Q4_K": Packing("int8", 32, affine=True)}
_NEAREST = {"Q6_K": INT8}

_SAME_ROWS: Mapping[str, RowsType] = {
    "F32": "f32",
    "F16": "f16",
    "BF16": "bf16",
    "Q4_0": "q4_0",
    "Q4_1": "q4_1",
    "Q8_0": "q8_0",
    "Q5_0": "q8_0",
}


def quantize_named(name: Any) -> Quantize:
    """A precision in any spelling of `number_types`. Raises ConfigError."""
    chosen: Quantize = choice_of(name, get_args(Quantize))
    if chosen in get_args(Quantize):
        return chosen
    hint = "; the engine does not keep weights in fp16" if number_type(name) == "float16" else ""
    raise ConfigError(f"quantize must be one of {', '.join(get_args(Quantize))}, not {name!r:.60}{hint}")


def packing_of(slot: Slot, dtype: str, quantize: Quantize, default: Packing) -> Packing:
    """dtype: of the source, in the orientation of the slot. default: what `auto` makes of float sources."""
    if slot.role == "sensitive" or quantize == "f32":
        return Packing("f32")
    if quantize == "bf16":
        return Packing("bf16")
    if slot.role == "latent":
        return INT8
    if quantize == "int8":
        return {**_WIDENED, **_SAME_8_BITS}.get(dtype, INT8)
    if quantize == "int4":
        return _SAME_4_BITS.get(dtype) or _default(slot, dtype, INT4)
    return {**_SAME_4_BITS, **_SAME_8_BITS, **_NEAREST}.get(dtype) or _default(slot, dtype, default)


def _default(slot: Slot, dtype: str, packing: Packing) -> Packing:
    """The head decides between neighbouring tokens directly: it stays in 8 bits."""
    if slot.role == "head" and packing.kind == "int4":
        return _SAME_8_BITS.get(dtype, INT8)
    return packing


def rows_type_of(dtype: str, quantize: Quantize) -> RowsType:
    """How the embedding is stored: exactly as in the source where there is a type for it, otherwise in fp16."""
    if quantize == "f32":
        return "f32"
    return _SAME_ROWS.get(dtype, "f16")


def default_packing(config: ModelConfig) -> Packing:
    """What `auto` makes of float sources: small models lose more by 4 bits, large ones need them to fit and be fast."""
    return INT8 if model_size(config).total < INT8_BELOW else INT4
