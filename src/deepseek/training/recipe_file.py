"""A recipe read from its TOML file, with the changes that a command line makes."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepseek.errors import ConfigError
from deepseek.training.recipe import Recipe


def read_recipe(path: Path, *, changes: Sequence[str] = (), steps: int | None = None) -> Recipe:
    """A recipe from a TOML file. changes: `key.of.table=value`, the value as in TOML or a bare text.

    steps: of the first stage. Paths in it count from the file's folder. Raises ConfigError naming file and key.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a recipe") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from None
    change_values(values, changes, steps=steps)
    _make_absolute(values, path.parent)
    try:
        return Recipe.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def change_values(values: dict[str, Any], changes: Sequence[str], *, steps: int | None = None) -> None:
    """In place; see `read_recipe`."""
    for change in changes:
        _set(values, change)
    if steps is not None:
        stage = values.setdefault("stage", {})
        stage.pop("tokens", None)
        stage["steps"] = steps


def _set(values: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes KEY=VALUE (optimizer.name=muon), not {change!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *tables, last = key.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {key.strip()}: {table} is not a table")
    values[last] = value


def _make_absolute(values: dict[str, Any], folder: Path) -> None:
    for table, key in (("data", "recipe"), ("data", "folder"), ("model", "start_from")):
        at = values.get(table)
        if isinstance(at, dict) and isinstance(at.get(key), str) and _is_path(folder, at[key]):
            at[key] = str((folder / Path(at[key]).expanduser()).absolute())


def _is_path(folder: Path, text: str) -> bool:
    """A model may be named as on a hub (`org/name`) instead."""
    return text.startswith((".", "/", "~")) or text.endswith(".toml") or (folder / text).exists()
