"""Tool calls that must come: the schema an answer is held to, and the calls read out of it as it comes.

`tool_choice: required` makes the answer `[{"name":...,"arguments":{...}},...]`, a named function its arguments alone.
The engine writes such JSON without blanks and with the names in this order, so reading it needs only to count.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deepseek.sampling import StructuredOutput
from deepseek.server.parsing import Piece, ToolCallPiece

_ANY_OBJECT: dict[str, Any] = {"type": "object"}
_NAME, _ARGUMENTS = '{"name":"', '","arguments":'
MOST_CALLS = 16


def schema_of_calls(functions: Sequence[Mapping[str, Any]], *, several: bool) -> StructuredOutput:
    """One or several calls of these functions (with name and perhaps parameters)."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": one["name"]}, "arguments": one.get("parameters") or _ANY_OBJECT},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for one in functions
    ]
    schema: dict[str, Any] = {
        "type": "array", "minItems": 1, "maxItems": MOST_CALLS if several else 1, "items": {"anyOf": calls},
    }  # fmt: skip
    for name in ("$defs", "definitions"):
        shared: dict[str, Any] = {}
        for one in functions:
            shared |= (one.get("parameters") or {}).get(name, {})
        if shared:
            schema[name] = shared  # references start at the whole schema
    return StructuredOutput(json_schema=schema)


def schema_of_arguments(function: Mapping[str, Any]) -> StructuredOutput:
    return StructuredOutput(json_schema=function.get("parameters") or _ANY_OBJECT)


class ArgumentsParser:
    """All text is the arguments of one call."""

    def __init__(self, name: str, new_id: Callable[[], str]) -> None:
        self._name: str | None = name
        self._new_id = new_id

    def feed(self, text: str) -> list[Piece]:
        if not text:
            return []
        piece = ToolCallPiece(0, self._new_id() if self._name else None, self._name, text)
        self._name = None
        return [Piece(tool_call=piece)]

    def finish(self) -> list[Piece]:
        return []


class CallsParser:
    """Reads the array of calls. What is cut off in the middle stays so: the client sees finish_reason "length"."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._index = -1
        self._head = ""
        self._in_arguments = False
        self._depth = 0
        self._in_string = self._is_escaped = False

    def feed(self, text: str) -> list[Piece]:
        pieces: list[Piece] = []
        place = 0
        while place < len(text):
            if self._in_arguments:
                end = self._end_of_arguments(text, place)
                pieces.append(Piece(tool_call=ToolCallPiece(self._index, None, None, text[place:end])))
                place = end
            else:
                self._head += text[place]
                place += 1
                if self._head.endswith(_ARGUMENTS):
                    pieces.append(self._begun())
        return pieces

    def finish(self) -> list[Piece]:
        return []

    def _begun(self) -> Piece:
        name = self._head.partition(_NAME)[2].removesuffix(_ARGUMENTS)
        self._head, self._in_arguments, self._depth = "", True, 0
        self._index += 1
        return Piece(tool_call=ToolCallPiece(self._index, self._new_id(), name, ""))

    def _end_of_arguments(self, text: str, place: int) -> int:
        """Where the arguments end in `text`, or its length; an object, so it ends with the brace that closes it."""
        for at in range(place, len(text)):
            character = text[at]
            if self._in_string:
                self._in_string = self._is_escaped or character != '"'
                self._is_escaped = not self._is_escaped and character == "\\"
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self._in_arguments = False
                    return at + 1
        return len(text)
