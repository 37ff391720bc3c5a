"""Writing TOML, which Python can only read."""

import json
from collections.abc import Mapping
from typing import Any


def to_toml(values: Mapping[str, Any]) -> str:
    """A document of tables, arrays of tables and plain values, as `tomllib` reads it back."""
    return "\n".join(_table(values, "")).strip() + "\n"


def _table(values: Mapping[str, Any], where: str) -> list[str]:
    lines = [f"{_key(key)} = {_value(value)}" for key, value in values.items() if not _is_table(value)]
    for key, value in values.items():
        name = f"{where}{_key(key)}"
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", *_table(value, f"{name}.")]
        elif _is_table(value):
            for item in value:
                lines += ["", f"[[{name}]]", *_table(item, f"{name}.")]
    return lines


def _is_table(value: Any) -> bool:
    tables = isinstance(value, list | tuple) and bool(value) and all(isinstance(item, Mapping) for item in value)
    return isinstance(value, Mapping) or tables


def _key(key: str) -> str:
    return key if key.replace("-", "").replace("_", "").isalnum() and key.isascii() else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _text(value: str) -> str:
    """JSON's escapes are TOML's too, but for the delete character, which TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
