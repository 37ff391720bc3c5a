"""The names of request fields that were ignored: listed in a response header, the debug log and a counter."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

HEADER = "x-ignored-fields"
MAX_FIELDS = 64
MAX_HEADER_CHARACTERS = 1024
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.\[\]-]")
_MAX_NAME_CHARACTERS = 80


class IgnoredFields:
    """Of one request. strict: unknown fields are not to be ignored but refused.

    names: paths such as `messages[].cache_control`, each once, in the order in which they were met; known: of them
    those that this server knows by name, which bounds how many different ones there can ever be.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.known: set[str] = set()
        self._names: dict[str, None] = {}
        self._more = 0

    @property
    def names(self) -> list[str]:
        return list(self._names)

    def add(self, name: str, *, known: bool) -> None:
        if name in self._names:
            return
        if len(self._names) >= MAX_FIELDS:
            self._more += 1
            return
        self._names[name] = None
        if known:
            self.known.add(name)

    def header(self) -> str:
        """`user, tools[].cache_control`: printable, bounded; ends with `...` where there are more."""
        shown: list[str] = []
        length = 0
        for name in self._names:
            safe = _NOT_IN_A_NAME.sub("?", name[:_MAX_NAME_CHARACTERS])
            length += len(safe) + 2
            if length > MAX_HEADER_CHARACTERS:
                return ", ".join([*shown, "..."])
            shown.append(safe)
        return ", ".join([*shown, "..."] if self._more else shown)


_current: ContextVar[IgnoredFields | None] = ContextVar("ignored_fields", default=None)


@contextmanager
def collecting(fields: IgnoredFields) -> Iterator[None]:
    """What is ignored within goes there."""
    token = _current.set(fields)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> IgnoredFields:
    """Of the request that is being read; of none, one that nobody looks at."""
    return _current.get() or IgnoredFields()


def ignore_unknown(name: str) -> bool:
    """A field of a form or an address that nobody knows; False: this server is strict, refuse it."""
    fields = current()
    if not fields.strict:
        fields.add(name, known=False)
    return not fields.strict


def ignore(name: str) -> None:
    """A field that this server knows and that changes nothing here, such as an effort for a model without reasoning."""
    current().add(name, known=True)
