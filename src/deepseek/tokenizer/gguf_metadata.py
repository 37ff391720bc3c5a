"""The metadata of a GGUF file, without its tensors: enough to build a tokenizer.

Reads at most `MAX_METADATA_BYTES`; counts and lengths are checked against what is left of that before use.
"""

import struct
from pathlib import Path
from typing import Any

from deepseek.errors import TokenizerError

MAX_METADATA_BYTES = 256 * 1024 * 1024
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def read_metadata(path: Path) -> dict[str, Any]:
    """GGUF key to Python value, arrays as lists. Only keys that start with `tokenizer.` are kept."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_METADATA_BYTES)
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read: {error.strerror or error}") from error
    return _Reader(data, str(path)).metadata()


class _Reader:
    def __init__(self, data: bytes, where: str) -> None:
        self._data, self._where, self._place = data, where, 0

    def metadata(self) -> dict[str, Any]:
        if self._data[:4] != b"GGUF":
            raise TokenizerError(f"{self._where}: is no GGUF file")
        self._place = 4
        version, _, count = self._scalar("I"), self._scalar("Q"), self._scalar("Q")
        if version not in (2, 3):
            raise TokenizerError(f"{self._where}: GGUF version {version} is not supported; known are 2 and 3")
        values: dict[str, Any] = {}
        for _ in range(count):
            key = self._string()
            value = self._value(self._scalar("I"))
            if key in values:
                raise TokenizerError(f"{self._where}: the key {key!r:.80} is there twice")
            if key.startswith("tokenizer."):
                values[key] = value
        return values

    def _take(self, size: int) -> bytes:
        piece = self._data[self._place : self._place + size]
        if len(piece) < size:
            raise TokenizerError(f"{self._where}: the metadata is cut off or has absurd lengths: fetch the file again")
        self._place += size
        return piece

    def _scalar(self, form: str) -> Any:
        return struct.unpack("<" + form, self._take(struct.calcsize("<" + form)))[0]

    def _string(self) -> str:
        try:
            return self._take(self._scalar("Q")).decode()
        except UnicodeDecodeError as error:
            raise TokenizerError(f"{self._where}: a text in the metadata is no UTF-8") from error

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY or depth > 4:
            raise TokenizerError(f"{self._where}: the metadata holds a value of unknown type {kind}")
        inner, count = self._scalar("I"), self._scalar("Q")
        if inner in _SCALARS:
            size = struct.calcsize("<" + _SCALARS[inner])
            data = self._take(count * size)
            return list(struct.unpack(f"<{count}{_SCALARS[inner]}", data))
        if count > len(self._data) - self._place:
            raise TokenizerError(f"{self._where}: an array in the metadata claims {count:,} items")
        return [self._value(inner, depth + 1) for _ in range(count)]
