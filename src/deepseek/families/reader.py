"""Typed access to a foreign configuration, which remembers what was asked for.

Keys that nobody asks for are judged by `families.unread`: most change nothing.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from deepseek.errors import ConfigError

_REQUIRED: Any = object()


class ConfigReader:
    """One flat mapping. `where` names the source in messages ("config.json", "GGUF metadata").

    defaults: what the reference implementation takes for a key that is absent; these win over a caller's own default.
    asked: every key that was asked for, with its prefix.
    """

    def __init__(
        self, values: Mapping[str, Any], where: str, prefix: str = "", defaults: Mapping[str, Any] | None = None
    ) -> None:
        self.values = values
        self.where = where
        self.prefix = prefix
        self.defaults = defaults or {}
        self.asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return self.values.get(self.prefix + key) is not None

    def raw(self, key: str, default: Any = _REQUIRED) -> Any:
        """The value as it stands; null counts as absent. Raises ConfigError when it is needed and absent."""
        self.asked.add(self.prefix + key)
        value = self.values.get(self.prefix + key)
        if value is not None:
            return value
        value = self.defaults.get(key, default)
        if value is _REQUIRED:
            raise ConfigError(f"{self.where} lacks the key {self.prefix + key!r}, which this family needs")
        return value

    def is_null(self, key: str) -> bool:
        """Whether the key is there and null: for the few keys where that is a value of its own."""
        self.asked.add(self.prefix + key)
        return self.prefix + key in self.values and self.values[self.prefix + key] is None

    def integer(self, key: str, default: Any = _REQUIRED) -> Any:
        """512.0 counts as 512: some tools write every number as a float."""
        value = self._typed(key, default, is_integer, "a whole number")
        return value if value is None else int(value)

    def nullable_integer(self, key: str, default: Any = _REQUIRED) -> Any:
        return None if self.is_null(key) else self.integer(key, default)

    def per_layer_integer(self, key: str, default: Any = _REQUIRED) -> Any:
        """A number, or a list with the same number for every layer. Raises ConfigError where layers differ."""
        value = self.raw(key, default)
        if not isinstance(value, list):
            return self.integer(key, default)
        if not value or not all(is_integer(each) and each == value[0] for each in value):
            raise ConfigError(
                f"{self.where}: {self.prefix + key} is {_brief(value)}; this version runs only models whose layers "
                "have the same number"
            )
        return int(value[0])

    def number(self, key: str, default: Any = _REQUIRED) -> Any:
        value = self._typed(key, default, _is_number, "a finite number")
        return value if value is None else float(value)

    def boolean(self, key: str, default: Any = _REQUIRED) -> Any:
        """0 and 1 count as false and true."""
        value = self._typed(key, default, lambda v: isinstance(v, bool) or v in (0, 1), "true or false")
        return value if value is None else bool(value)

    def tested(self, key: str, default: Any = _REQUIRED) -> Any:
        """A flag that the reference only tests, so that null turns it off even where true is the default."""
        return not self.is_null(key) and self.boolean(key, default)

    def text(self, key: str, default: Any = _REQUIRED) -> Any:
        return self._typed(key, default, lambda v: isinstance(v, str), "a string")

    def mapping(self, key: str) -> Mapping[str, Any]:
        """An object; whatever is empty or false is an empty one."""
        value = self.raw(key, None)
        if not value:
            return {}
        found: Mapping[str, Any] = self._typed(key, {}, lambda v: isinstance(v, Mapping), "an object")
        return found

    def _typed(self, key: str, default: Any, fits: Callable[[Any], bool], kind: str) -> Any:
        value = self.raw(key, default)
        if value is not None and value is not default and not fits(value):
            raise ConfigError(f"{self.where}: {self.prefix + key} must be {kind}, not {_brief(value)}")
        return value

    def must_be(self, key: str, *allowed: Any) -> None:
        """For a key whose other values this version does not know how to run; absent is fine."""
        self.asked.add(self.prefix + key)
        value = self.values.get(self.prefix + key)
        if value is not None and value not in allowed:
            choices = " or ".join(map(repr, allowed))
            raise ConfigError(f"{self.where}: {self.prefix + key} is {_brief(value)}; this version runs only {choices}")

    def derived(self, *keys: str) -> None:
        """Keys that the reference computes from others, whatever the file says."""
        self.asked.update(self.prefix + key for key in keys)

    def unread(self) -> dict[str, Any]:
        """Keys under the prefix, without it, that nobody asked for; null says nothing."""
        return {
            key.removeprefix(self.prefix): value
            for key, value in self.values.items()
            if key.startswith(self.prefix) and key not in self.asked and value is not None
        }


def is_integer(value: Any) -> bool:
    """Whether a value read from JSON or GGUF is a whole number, perhaps written as a float."""
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
