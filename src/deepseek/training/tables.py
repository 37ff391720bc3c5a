"""Frozen dataclasses from tables of a TOML file: unknown keys and wrong types are errors that name the key."""

import dataclasses
import re
import types
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from deepseek.errors import ConfigError
from deepseek.number_types import choice_of

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
    problems = _wrong_names(values, fields, at)
    hints = get_type_hints(cls)
    given = {}
    for name, value in values.items():
        if name in fields:
            try:
                given[name] = _value(hints[name], value, at + name)
            except ConfigError as error:
                problems.append(str(error))
    if problems:
        raise ConfigError("; ".join(problems))
    try:
        return cls(**given)
    except ConfigError as error:
        raise ConfigError(_placed(str(error), where, fields)) from None


def _placed(error: str, where: str, names: Collection[str]) -> str:
    """The message of a dataclass, which knows its fields but not where it stands."""
    begin = re.match(r"\w*", error)
    if begin and begin[0] in names:
        return f"{where}.{error}" if where else error
    return error if not where or error.startswith((where, "source ")) else f"{where}: {error}"


def _wrong_names(values: Mapping[str, Any], fields: Mapping[str, "dataclasses.Field[Any]"], at: str) -> list[str]:
    """All keys that do not exist, and all that are missing, so that one reading of the message is enough."""
    found = []
    if unknown := [f"{at}{key}" for key in values if key not in fields]:
        found.append(f"unknown key{'s' * (len(unknown) > 1)} {', '.join(unknown)}; known are {', '.join(fields)}")
    needed = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing := [f"{at}{name}" for name in needed if name not in values]:
        found.append(f"missing key{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return found


def _value(kind: Any, value: object, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _value(next(one for one in arguments if one is not types.NoneType), value, where)
    if origin is Literal:
        value = choice_of(value, arguments)
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
