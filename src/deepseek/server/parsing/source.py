"""Text that comes in parts, read as if it were whole.

Every reading method is a generator that yields when it needs more text and goes on where it was. So the place at which
the text was cut cannot matter. What was read since `begin` is kept, so that it can be put back.
"""

import re
from collections.abc import Callable, Generator
from functools import lru_cache
from typing import TypeVar

from deepseek.server.parsing.json_text import JsonScanner
from deepseek.server.parsing.pieces import Malformed

Result = TypeVar("Result")
Reading = Generator[None, None, Result]

MOST_AT_ONCE = 4096
"""Characters given to `accept` in one go; bounds what `put_back` copies."""

MOST_ASKED = 1024
"""So far into a JSON object is asked whether it is wanted."""

_BLANK = re.compile(r"[ \t\r\n]*")


class Markers:
    """A set of literals to look for. None may begin with another one, or it could never be told from it."""

    def __init__(self, literals: frozenset[str]) -> None:
        self._pattern = re.compile("|".join(map(re.escape, sorted(literals))) or "(?!)")
        self._beginnings = {literal[:size] for literal in literals for size in range(1, len(literal))}
        self._longest = max(map(len, literals), default=0)
        assert not self._beginnings & literals

    def find(self, text: str, place: int) -> tuple[int, str]:
        """Where the first literal is, and which. Where there is none: where one may have begun, and ""."""
        match = self._pattern.search(text, place)
        if match:
            return match.start(), match[0]
        for start in range(max(place, len(text) - self._longest + 1), len(text)):
            if text[start:] in self._beginnings:
                return start, ""
        return len(text), ""

    def last(self, text: str, place: int) -> int | None:
        """Where the last literal from `place` on begins."""
        start = None
        for match in self._pattern.finditer(text, place):
            start = match.start()
        return start

    def at(self, text: str, place: int) -> str | None:
        """The literal at this place, "" if one may yet be there, else None."""
        match = self._pattern.match(text, place)
        if match:
            return match[0]
        rest = len(text) - place
        return "" if rest == 0 or rest < self._longest and text[place:] in self._beginnings else None


markers = lru_cache(maxsize=128)(Markers)


class Source:
    """`accept` adds text, `close` says that no more comes; everything else reads."""

    def __init__(self) -> None:
        self._text = ""
        self._place = 0
        self._taken: list[str] = []
        self.is_closed = False

    @property
    def waiting(self) -> int:
        """Characters that are held and not read."""
        return len(self._text) - self._place

    def accept(self, text: str) -> None:
        self._text = self._text[self._place :] + text
        self._place = 0

    def close(self) -> None:
        self.is_closed = True

    def begin(self) -> None:
        """Forget what was read until now."""
        self._taken = []

    def put_back(self) -> str:
        """What was read since `begin`; it is not read again unless given to `unread`."""
        taken = "".join(self._taken)
        self._taken = []
        return taken

    def unread(self, text: str) -> None:
        """Text to read again, before all else."""
        self._text = text + self._text[self._place :]
        self._place = 0

    def unread_text(self) -> str:
        """Read all that is held, at once."""
        return self._take(self.waiting)

    def sees(self, literal: str) -> Reading[bool]:
        """Whether the text goes on with this, which is not read."""
        while not self.waiting:
            if not (yield from self.more()):
                return False
        return self._text.startswith(literal, self._place)

    def more(self) -> Reading[bool]:
        """Wait for text; False if none comes."""
        if self.is_closed:
            return False
        yield
        return True

    def literal(self, *literals: str) -> Reading[str | None]:
        """Read one of these if the text goes on with it. None if not, and nothing is read."""
        wanted = markers(frozenset(literals))
        while True:
            found = wanted.at(self._text, self._place)
            if found:
                self._take(len(found))
            if found != "":
                return found
            if not (yield from self.more()):
                return None

    def expect(self, *literals: str) -> Reading[str]:
        found = yield from self.literal(*literals)
        if found is None:
            raise Malformed
        return found

    def blank(self) -> Reading[str]:
        """Read white space, as much as there is."""
        read = []
        while True:
            match = _BLANK.match(self._text, self._place)
            assert match is not None
            read.append(match[0])
            self._take(len(match[0]))
            if self.waiting or not (yield from self.more()):
                return "".join(read)

    def until(self, wanted: Markers, say: Callable[[str], None]) -> Reading[str | None]:
        """Read up to and with the first literal, which is returned; `say` gets what comes before. None: text ended."""
        while True:
            place, found = wanted.find(self._text, self._place)
            if place > self._place:
                say(self._take(place - self._place))
            self.begin()
            if found:
                return self._take(len(found))
            if not (yield from self.more()):
                if self.waiting:
                    say(self._take(self.waiting))
                return None

    def word(self, letter: re.Pattern[str], most: int) -> Reading[str]:
        """Read 1 to `most` characters that each match `letter`, a pattern like `[a-z]*`. Malformed otherwise."""
        parts: list[str] = []
        size = 0
        while True:
            match = letter.match(self._text, self._place)
            assert match is not None
            parts.append(self._take(match.end() - match.start()))
            size += len(parts[-1])
            if size > most:
                raise Malformed
            if self.waiting or not (yield from self.more()):
                if not size:
                    raise Malformed
                return "".join(parts)

    def text_before(self, stop: str) -> Reading[str]:
        """The text before `stop`, which is read too. Malformed without it."""
        parts: list[str] = []
        wanted = markers(frozenset((stop,)))
        while True:
            place, found = wanted.find(self._text, self._place)
            parts.append(self._take(place - self._place))
            if found:
                self._take(len(found))
                return "".join(parts)
            if not (yield from self.more()):
                raise Malformed

    def json_object(self, is_wanted: Callable[[str], bool] | None = None) -> Reading[tuple[str, JsonScanner]]:
        """Read a JSON object: its text, with white space before it, and its scanner. Malformed where none is.

        is_wanted: asked with the object's beginning, as far as it has come; False makes it Malformed.
        """
        scanner = JsonScanner(only_object=True)
        parts: list[str] = []
        while True:
            before = scanner.length
            try:
                scanner.scan(self._text, self._place)
            finally:  # what was read before a wrong character counts as read, wherever the text was cut
                parts.append(self._take(scanner.length - before))
            if is_wanted is not None and before < MOST_ASKED and not is_wanted("".join(parts)):
                raise Malformed
            if scanner.is_done:
                return "".join(parts), scanner
            if not (yield from self.more()):
                raise Malformed

    def ending(self, *literals: str) -> Reading[None]:
        """Read these, with white space before each. Text may end on the way; other text is Malformed."""
        for literal in literals:
            yield from self.blank()
            found = yield from self.literal(literal)
            if found is None:
                if not self.is_closed or not literal.startswith(self._text[self._place :]):
                    raise Malformed
                self._take(self.waiting)
                return

    def _take(self, size: int) -> str:
        piece = self._text[self._place : self._place + size]
        self._place += size
        if piece:
            self._taken.append(piece)
        return piece
