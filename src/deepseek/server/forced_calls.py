"""Tool calls that must come: the schema an answer is held to, and the calls read out of it as it comes.

The answer is `{"name": ..., "arguments": {...}}`, or an array of such where several may come: what models that know
tools are told to write. Held to the arguments alone, they take a parameter `name` for the function's and fill in that.
Models that know none are right more often with the arguments of a named function alone (decision 029).
The engine holds the names to this order, so reading them needs no JSON parser. Blanks between the parts of arguments
are left out.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deepseek.engine.json_schemas import declares_no_properties, moved, refers
from deepseek.sampling import StructuredOutput
from deepseek.server.parsing import Piece, ToolCallPiece

_NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
_HEAD = re.compile(r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*\{$')
MOST_CALLS = 16
_BLANKS = " \t\r\n"


def schema_of_calls(functions: Sequence[Mapping[str, Any]], *, several: bool) -> StructuredOutput:
    """One or several calls of these functions (with name and perhaps parameters).

    Parameters that refer to parts of themselves move to `$defs`. The others stay in their place: a schema with
    references is tried in a process of its own before it is used.
    """
    calls, definitions = [], {}
    for place, one in enumerate(functions):
        parameters = moved(parameters_of(one), f"/$defs/{place}")
        if refers(parameters):
            definitions[str(place)] = parameters
            parameters = {"$ref": f"#/$defs/{place}"}
        calls.append({
            "type": "object",
            "properties": {"name": {"const": one["name"]}, "arguments": parameters},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        })  # fmt: skip
    schema: dict[str, Any] = {"anyOf": calls}
    if several:
        schema = {"type": "array", "minItems": 1, "maxItems": MOST_CALLS, "items": schema}
    return StructuredOutput(json_schema={**schema, "$defs": definitions} if definitions else schema)


def schema_of_arguments(function: Mapping[str, Any]) -> StructuredOutput:
    return StructuredOutput(json_schema=parameters_of(function))


def parser_of_arguments(name: str, new_id: Callable[[], str]) -> "CallsParser":
    """For an answer that is the arguments of this function alone."""
    parser = CallsParser(new_id)
    parser.feed(f'{{"name":{json.dumps(name)},"arguments":')
    return parser


def parameters_of(function: Mapping[str, Any]) -> dict[str, Any]:
    """A tool that declares no parameters takes none."""
    declared = function.get("parameters")
    return _NO_ARGUMENTS if declares_no_properties(declared) else {"type": "object", **(declared or {})}


class CallsParser:
    """Reads calls. What is cut off in the middle stays so: the client sees finish_reason "length"."""

    in_reasoning = False

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._index = -1
        self._head = ""
        self._object: _CompactObject | None = None

    def feed(self, text: str) -> list[Piece]:
        pieces: list[Piece] = []
        place = 0
        while place < len(text):
            if self._object is not None:
                place, arguments = self._object.take(text, place)
                if arguments:
                    pieces.append(Piece(tool_call=ToolCallPiece(self._index, None, None, arguments)))
                if self._object.is_done:
                    self._object = None
                continue
            self._head += text[place]
            head = _HEAD.search(self._head) if text[place] == "{" else None
            if head is None:
                place += 1
            else:
                pieces.append(self._begun(json.loads(head[1])))
        return pieces

    def finish(self) -> list[Piece]:
        return []

    def _begun(self, name: str) -> Piece:
        self._head, self._object = "", _CompactObject()
        self._index += 1
        return Piece(tool_call=ToolCallPiece(self._index, self._new_id(), name, ""))


class _CompactObject:
    """A valid JSON object as it comes, without the blanks between its parts; is_done: its last brace was read."""

    def __init__(self) -> None:
        self.is_done = False
        self._depth = 0
        self._in_string = self._is_escaped = False

    def take(self, text: str, place: int) -> tuple[int, str]:
        """How far `text` belongs to the object, and that without blanks."""
        kept = []
        while place < len(text) and not self.is_done:
            character = text[place]
            place += 1
            if self._in_string:
                self._in_string = self._is_escaped or character != '"'
                self._is_escaped = not self._is_escaped and character == "\\"
            elif character in _BLANKS:
                continue
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                self.is_done = self._depth == 0
            kept.append(character)
        return place, "".join(kept)
