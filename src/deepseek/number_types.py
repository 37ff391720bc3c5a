"""How users, files and libraries spell types of numbers: the one vocabulary of everything that takes such a name."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

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


def choice_of(value: Any, choices: Iterable[T]) -> T:
    """The choice that names the same type of numbers as `value`; a value that matches none stays as it is.

    choices: each in any spelling, such as "q8_0" or torch.float32; those that name no type never match.
    """
    name = number_type(value)
    matching: T = next((choice for choice in choices if name is not None and number_type(choice) == name), value)
    return matching
