"""JSON that is checked as it comes, without building it.

Why not `json.loads`: it needs the whole text, recurses, and loses how numbers were written. Here a text is refused at
its first wrong character, in linear time, and the members of the outermost object are known by where they stand.
"""

import json
import re
from typing import Any

from deepseek.server.parsing.pieces import Malformed

DEEPEST = 48
"""Deeper arguments are not a call: chat templates refuse to print them when the call comes back with its result."""
LONGEST_NUMBER = 400

_BLANK = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'[^"\\]*')
_SCALAR = re.compile(r"[-+.0-9A-Za-z]*")
_VALID_SCALAR = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WHOLE_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_RAW_CONTROL = re.compile("[\0-\x1f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_HEX = re.compile("[0-9a-fA-F]{4}")


class JsonScanner:
    """Reads one JSON value from parts of text. Control characters within strings are let through: models write them.

    members: of an outermost object, (key, value) as spans of the scanned text. length: characters of it so far.
    is_done: the value is complete.
    """

    def __init__(self, *, only_object: bool = False) -> None:
        self.members: list[tuple[slice, slice]] = []
        self.is_done = False
        self._open: list[str] = []
        self._wants = "object" if only_object else "value"
        self._escape: str | None = None
        self._scalar: list[str] = []
        self.length = 0
        self._start = 0
        self._key = slice(0, 0)

    def scan(self, text: str, place: int) -> int:
        """Read `text` from `place` to the value's end or its own: where it stopped.

        Raises Malformed at the first wrong character; `length` counts those before it.
        """
        while place < len(text) and not self.is_done:
            reached = self._step(text, place, self.length)
            self.length += reached - place
            place = reached
        return place

    def end(self) -> bool:
        """No more text comes: whether the value is complete. Only a bare number or word ends with its text."""
        if self._wants == "scalar" and not self._open and not self.is_done:
            self._end_scalar(self.length)
        return self.is_done

    def _step(self, text: str, place: int, offset: int) -> int:
        if self._wants in ("string", "key string"):
            return self._in_string(text, place, offset)
        if self._wants == "scalar":
            return self._in_scalar(text, place, offset)
        match = _BLANK.match(text, place)
        assert match is not None
        if match.end() > place:
            return match.end()
        self._punctuation(text[place], offset)
        return place if self._wants == "scalar" else place + 1

    def _punctuation(self, character: str, offset: int) -> None:
        wants = self._wants
        if wants == "object" and character == "{":
            self._begin_value(character, offset)
        elif wants in ("value", "value or ]"):
            if character == "]" and wants == "value or ]":
                self._close("[", offset)
            else:
                self._begin_value(character, offset)
        elif wants in ("key", "key or }") and character == '"':
            if len(self._open) == 1:
                self._start = offset
            self._wants = "key string"
        elif wants == "key or }" and character == "}" or wants == ", or }" and character == "}":
            self._close("{", offset)
        elif wants == ":" and character == ":":
            self._wants = "value"
        elif wants == ", or }" and character == ",":
            self._wants = "key"
        elif wants == ", or ]" and character == ",":
            self._wants = "value"
        elif wants == ", or ]" and character == "]":
            self._close("[", offset)
        else:
            raise Malformed

    def _begin_value(self, character: str, offset: int) -> None:
        if len(self._open) == 1:
            self._start = offset
        if character in "{[":
            if len(self._open) >= DEEPEST:
                raise Malformed
            self._open.append(character)
            self._wants = "key or }" if character == "{" else "value or ]"
        elif character == '"':
            self._wants = "string"
        elif character == "-" or character.isalnum() and character.isascii():
            self._wants = "scalar"
        else:
            raise Malformed

    def _close(self, opening: str, offset: int) -> None:
        if self._open.pop() != opening:
            raise Malformed
        self._end_value(offset + 1)

    def _end_value(self, offset: int) -> None:
        if not self._open:
            self.is_done = True
            return
        if len(self._open) == 1 and self._open[0] == "{":
            self.members.append((self._key, slice(self._start, offset)))
        self._wants = ", or }" if self._open[-1] == "{" else ", or ]"

    def _in_string(self, text: str, place: int, offset: int) -> int:
        if self._escape is not None:
            return self._in_escape(text[place], place)
        match = _STRING.match(text, place)
        assert match is not None
        if match.end() > place:
            return match.end()
        if text[place] == "\\":
            self._escape = ""
        elif self._wants == "string":
            self._end_value(offset + 1)
        else:
            if len(self._open) == 1:
                self._key = slice(self._start, offset + 1)
            self._wants = ":"
        return place + 1

    def _in_escape(self, character: str, place: int) -> int:
        assert self._escape is not None
        self._escape += character
        if self._escape[0] == "u":
            if len(self._escape) == 5:
                if not _HEX.fullmatch(self._escape, 1):
                    raise Malformed
                self._escape = None
        elif self._escape in '"\\/bfnrt':
            self._escape = None
        else:
            raise Malformed
        return place + 1

    def _in_scalar(self, text: str, place: int, offset: int) -> int:
        match = _SCALAR.match(text, place)
        assert match is not None
        self._scalar.append(match[0])
        if sum(map(len, self._scalar)) > LONGEST_NUMBER:
            raise Malformed
        if match.end() < len(text):
            self._end_scalar(offset + match.end() - place)
        return match.end()

    def _end_scalar(self, offset: int) -> None:
        text = "".join(self._scalar)
        self._scalar = []
        if not _VALID_SCALAR.fullmatch(text):
            raise Malformed
        self._end_value(offset)


def is_json(text: str) -> bool:
    """Whether this text is one JSON value and white space; control characters in strings are let through."""
    if _SURROGATE.search(text):
        return False
    scanner = JsonScanner()
    try:
        place = scanner.scan(text, 0)
        return scanner.end() and not text[place:].strip(" \t\r\n")
    except Malformed:
        return False


def strict(text: str) -> str:
    """Scanned JSON with its strings' control characters escaped, as the standard wants it."""
    if not _RAW_CONTROL.search(text):
        return text
    return _WHOLE_STRING.sub(
        lambda string: _RAW_CONTROL.sub(lambda control: json.dumps(control[0])[1:-1], string[0]), text
    )


def quoted(text: str) -> str:
    """A text as a JSON string."""
    return json.dumps(text, ensure_ascii=False)


def unquoted(text: str) -> Any:
    """What a scanned JSON string says."""
    return json.loads(text, strict=False)
