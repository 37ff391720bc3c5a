"""JSON from outside: bounded before it is parsed. Headers and indexes allow no duplicate keys and no NaN."""

import codecs
import json
import re
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from deepseek.errors import CheckpointError

MAX_TOKENS = 8_000_000  # brackets, commas and quotes; the largest published header has under a million
MAX_DEPTH = 32

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))


def read_object(path: Path, *, max_bytes: int, as_python: bool = False) -> dict[str, Any]:
    """The JSON object in a file. Raises CheckpointError naming the file. as_python: see `parse_object`."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) > max_bytes:
        raise CheckpointError(f"{path}: over {max_bytes >> 20} MiB, which no such file needs")
    return parse_object(data.removeprefix(codecs.BOM_UTF8), str(path), as_python=as_python)


def parse_object(data: bytes, where: str, *, integers_only: bool = False, as_python: bool = False) -> dict[str, Any]:
    """Parse bytes whose length the caller has bounded. Memory stays within some hundreds of megabytes.

    as_python: read what Python's json reads, in which most configurations are written: NaN and Infinity are numbers,
    of a name that occurs twice the last counts.
    Raises CheckpointError, starting with `where`, for anything that is not one well-formed object.
    """
    _check_bounds(data, where)

    def refuse(what: str) -> NoReturn:
        raise ValueError(f"the number {what[:20]} is not a whole number")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"the name {_first_twice(names)!r} occurs twice")
        return values

    try:
        values = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=None if as_python else unique,
            parse_constant=None if as_python else refuse,
            parse_float=refuse if integers_only else None,
        )
    except ValueError as error:  # among them JSONDecodeError, UnicodeDecodeError, integers of thousands of digits
        raise CheckpointError(f"{where}: damaged JSON ({error}); fetch the file again") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{where}: must be a JSON object, not {type(values).__name__}")
    return values


def _check_bounds(data: bytes, where: str) -> None:
    tokens = sum(data.count(token) for token in (b'"', b",", b"{", b"["))
    if tokens > MAX_TOKENS:
        raise CheckpointError(f"{where}: {tokens:,} JSON tokens, more than any model needs ({MAX_TOKENS:,})")
    brackets = np.frombuffer(_STRING.sub(b"", data).translate(None, _NOT_BRACKETS), np.uint8)
    depth = np.where((brackets == ord("{")) | (brackets == ord("[")), 1, -1).cumsum(dtype=np.int32)
    if depth.size and depth.max() > MAX_DEPTH:
        raise CheckpointError(f"{where}: JSON nested {depth.max()} deep; at most {MAX_DEPTH} is read")


def _first_twice(names: list[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
