"""Frozen dataclasses from tables of a TOML file: unknown keys and wrong types are errors that name the key."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from deepseek.errors import ConfigError

T = TypeVar("T")


def build(cls: type[T], values: object, where: str) -> T:
    """An instance of a dataclass. `where` is the path to the table, for messages ("training"; "" for the whole file).

    Fields may be bool, int, float, str, Literal, dataclasses, tuples of one of these, mappings, or any of them or None.
    Raises ConfigError naming the key, and the known ones if it is unknown.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'the recipe'} must be a table of keys and values, not {_brief(values)}")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    at = f"{where}." if where else ""
    if unknown := [key for key in values if key not in fields]:
        raise ConfigError(f"unknown key {at}{unknown[0]}; known are {', '.join(fields)}")
    for name, field in fields.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and name not in values:
            raise ConfigError(f"missing key {at}{name}")
    hints = get_type_hints(cls)
    given = {name: _value(hints[name], value, at + name) for name, value in values.items()}
    try:
        return cls(**given)
    except ConfigError as error:
        raise ConfigError(str(error) if str(error).startswith(at) else f"{at}{error}") from None


def _value(kind: Any, value: object, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _value(next(one for one in arguments if one is not types.NoneType), value, where)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{where} must be one of {', '.join(map(str, arguments))}, not {_brief(value)}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} must be a list, not {_brief(value)}")
        return tuple(_value(arguments[0], item, f"{where}[{at}]") for at, item in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return build(kind, value, where)  # type: ignore[arg-type]
    return _plain(origin or kind, value, where)


def _plain(kind: Any, value: object, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    right = isinstance(value, Mapping if kind not in wanted else kind) and (kind is bool or not isinstance(value, bool))
    if not right:
        raise ConfigError(f"{where} must be {wanted.get(kind, 'a table')}, not {_brief(value)}")
    return value


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def plain(value: object) -> Any:
    """What JSON can hold of a dataclass, as `build` takes it; None is left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {name: plain(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
