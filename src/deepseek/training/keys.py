"""Every key of a recipe with its type, default and meaning: from the dataclasses, which say each of them once.

The meanings stand in their docstrings, a line or more for each: `name: meaning` or `name, other: meaning`.
"""

import dataclasses
import inspect
import json
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from deepseek.training.data.recipe import DataRecipe
from deepseek.training.recipe import Recipe

_LINE = re.compile(r"([a-z_0-9]+(?:, [a-z_0-9]+)*): (.*)", re.DOTALL)
_NAMES = {"sources": "source"}  # as the file says it


@dataclass(frozen=True, slots=True)
class Key:
    """default: "" for a key that must be given. meaning: may be of several keys together."""

    name: str
    kind: str
    default: str
    meaning: str


def run_keys() -> list[Key]:
    """Of the recipe of a run."""
    return list(_keys(Recipe, ""))


def data_keys() -> list[Key]:
    """Of the recipe of data."""
    return list(_keys(DataRecipe, ""))


def _keys(cls: type[Any], where: str) -> Iterator[Key]:
    hints, meanings = get_type_hints(cls), meanings_of(cls)
    for field in dataclasses.fields(cls):
        if isinstance(field.default, Path):
            continue  # where the file lies, no key
        name, kind = where + _NAMES.get(field.name, field.name), hints[field.name]
        inner = get_args(kind)[0] if get_origin(kind) is tuple else kind
        if dataclasses.is_dataclass(inner):
            yield from _keys(inner, f"{name}.") if inner is kind else _repeated(inner, name, meanings[field.name])  # type: ignore[arg-type]
        else:
            yield Key(name, _kind(kind), _default(field), meanings[field.name])


def _repeated(cls: type[Any], name: str, meaning: str) -> Iterator[Key]:
    """Tables of which there may be several; those of stages are the same as of `stage`."""
    if name == "stages":
        yield Key("stages", "tables", "[]", meaning)
    else:
        yield from _keys(cls, f"{name}.")


def meanings_of(cls: type[Any]) -> dict[str, str]:
    """What the docstring says of each field. Raises KeyError later for a field of which it says nothing."""
    names = {field.name for field in dataclasses.fields(cls)}
    found: dict[str, str] = {}
    current: list[str] = []
    for line in inspect.getdoc(cls).split("\n"):  # type: ignore[union-attr]
        match = _LINE.fullmatch(line)
        if match and set(match[1].split(", ")) <= names:
            current = match[1].split(", ")
            found |= dict.fromkeys(current, match[2])
        elif line.strip() and current:
            found |= {name: f"{found[name]} {line.strip()}" for name in current}
        else:
            current = []
    return found


def _kind(kind: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        return _kind(next(one for one in get_args(kind) if one is not types.NoneType))
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return "list"
    plain = {bool: "true, false", int: "integer", float: "number", str: "text"}
    return plain.get(kind, "table")


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default_factory is not dataclasses.MISSING:
        return "{}"
    if field.default is dataclasses.MISSING:
        return ""
    if field.default is None or field.default == "":
        return "none"
    return json.dumps(field.default)


def markdown(keys: list[Key]) -> str:
    """A table for docs."""
    rows = [f"| `{key.name}` | {key.kind} | {_cell(key.default)} | {key.meaning} |" for key in keys]
    return "\n".join(("| key | takes | default | meaning |", "|---|---|---|---|", *rows))


def _cell(default: str) -> str:
    return {"": "must be given", "none": ""}.get(default, f"`{default}`")
