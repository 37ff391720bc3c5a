"""Reading a foreign configuration so that no key is ignored by accident.

A family asks for every key it uses and names those that change nothing; `finish` refuses the rest by name.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from deepseek.errors import ConfigError

_REQUIRED: Any = object()


class ConfigReader:
    """Typed access to one flat mapping. `where` names the source in messages ("config.json", "GGUF metadata")."""

    def __init__(self, values: Mapping[str, Any], where: str, prefix: str = "") -> None:
        self.values = values
        self.where = where
        self.prefix = prefix
        self._seen: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return self.values.get(self.prefix + key) is not None

    def raw(self, key: str, default: Any = _REQUIRED) -> Any:
        """The value as it stands; null counts as absent. Raises ConfigError when it is needed and absent."""
        self._seen.add(self.prefix + key)
        value = self.values.get(self.prefix + key)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise ConfigError(f"{self.where} lacks the key {self.prefix + key!r}, which this family needs")
        return default

    def integer(self, key: str, default: Any = _REQUIRED) -> Any:
        return self._typed(key, default, lambda v: isinstance(v, int) and not isinstance(v, bool), "a whole number")

    def number(self, key: str, default: Any = _REQUIRED) -> Any:
        value = self._typed(key, default, _is_number, "a finite number")
        return value if value is None else float(value)

    def boolean(self, key: str, default: Any = _REQUIRED) -> Any:
        return self._typed(key, default, lambda v: isinstance(v, bool), "true or false")

    def text(self, key: str, default: Any = _REQUIRED) -> Any:
        return self._typed(key, default, lambda v: isinstance(v, str), "a text")

    def mapping(self, key: str) -> Mapping[str, Any]:
        value: Mapping[str, Any] = self._typed(key, {}, lambda v: isinstance(v, Mapping), "an object")
        return value

    def _typed(self, key: str, default: Any, fits: Callable[[Any], bool], kind: str) -> Any:
        value = self.raw(key, default)
        if value is not default and not fits(value):
            raise ConfigError(f"{self.where}: {self.prefix + key} must be {kind}, not {_brief(value)}")
        return value

    def must_be(self, key: str, *allowed: Any) -> None:
        """For a key whose other values this version does not know how to run; absent is fine."""
        value = self.raw(key, None)
        if value is not None and value not in allowed:
            choices = " or ".join(map(repr, allowed))
            raise ConfigError(f"{self.where}: {self.prefix + key} is {_brief(value)}; this version runs only {choices}")

    def harmless(self, keys: Iterable[str]) -> None:
        """Keys known to change nothing in what the model computes."""
        self._seen.update(self.prefix + key for key in keys)

    def unread(self) -> list[str]:
        return sorted(key for key in self.values if key.startswith(self.prefix) and key not in self._seen)

    def finish(self, allow_unknown: bool) -> None:
        """Refuse the first key nobody asked for, unless allowed."""
        if not allow_unknown and (unread := self.unread()):
            raise ConfigError(
                f"{self.where}: unknown key {unread[0]!r} (value {_brief(self.values[unread[0]])}) might change what "
                f"the model computes; remove it, or allow unknown keys (allow_unknown=True, --allow-unknown-keys)"
                + (f". Also unknown: {', '.join(unread[1:6])}" if unread[1:] else "")
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
