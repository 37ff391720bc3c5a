"""How users, files and libraries spell types of numbers: the one vocabulary of everything that takes such a name."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "float32": ("f32", "fp32", "float", "single"),
    "float16": ("f16", "fp16", "half"),
    "bfloat16": ("bf16",),
    "int8": ("q8_0", "q8", "i8", "8bit"),
    "int4": ("q4_0", "q4", "i4", "4bit"),
}
_NAMES = {spelling: name for name, also in _SPELLINGS.items() for spelling in (name, *also)}


def number_type(spelled: object) -> str | None:
    """float32, float16, bfloat16, int8 or int4, from any spelling or a type of torch or NumPy; None for another."""
    text = str(getattr(spelled, "__name__", spelled)).strip().lower().removeprefix("torch.")
    return _NAMES.get(text)


def spelled_as(value: T, choices: Mapping[str, T]) -> T:
    """`value` as the caller spells it: choices maps our names to that. What is no such type stays as it is."""
    return choices.get(number_type(value) or "", value)
