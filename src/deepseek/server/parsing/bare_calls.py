"""Tool calls that a model writes as plain JSON: a whole answer that is a call of a given tool, or a list of calls.

Models without a call syntax (Llama 3) write `{"name": ..., "parameters": {...}}`, and small ones leave out the
`<tool_call>` that their template asks for, or put the call into a fence. With any other text around it, JSON stays
text: it may be an example. Text is held back only while the whole of it can still be calls.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deepseek.server.parsing.hermes_calls import named_call
from deepseek.server.parsing.output import OutputParser
from deepseek.server.parsing.pieces import Malformed, Piece, ToolCallPiece
from deepseek.server.parsing.source import MOST_AT_ONCE, Reading, Source

_KEYS = ("name", "arguments", "parameters")
_OPENS = ("<tools>", "<function_call>", "<|python_tag|>")
"""Of Qwen2.5-Coder (github.com/vllm-project/vllm/pull/33083), of older fine-tunes and of Llama 3.1."""
_CLOSES = ("</tools>", "</function_call>", "</tool_call>")
_HEAD = re.compile(r'\s*\{\s*(?:"(?P<key>[^"\\]*)(?P<ended>"\s*:\s*(?P<value>"(?P<name>[^"\\]*)(?P<done>")?|\S)?)?)?')
_LONGEST_HEAD = 1024
_MOST_CALLS = 64


class BareCallParser:
    """What `inner` finds, but calls where all its content is calls. Where the text is cut does not change which."""

    def __init__(self, inner: OutputParser, tools: Sequence[Mapping[str, Any]], new_id: Callable[[], str]) -> None:
        """tools: the request's."""
        functions = [tool["function"] for tool in tools if isinstance(tool.get("function"), Mapping)]
        self._inner = inner
        self._parameters = {function["name"]: function.get("parameters") for function in functions}
        self._new_id = new_id
        self._source = Source()
        self._calls: list[tuple[str, str]] | None = None
        self._is_text = False
        self._reading = self._read()
        next(self._reading)

    @property
    def in_reasoning(self) -> bool:
        return self._inner.in_reasoning

    def feed(self, text: str) -> list[Piece]:
        return [one for piece in self._inner.feed(text) for one in self._passed(piece)]

    def finish(self) -> list[Piece]:
        pieces = [one for piece in self._inner.finish() for one in self._passed(piece)]
        if self._is_text:
            return pieces
        self._source.close()
        if self._ended():
            return [*pieces, *self._released()]
        assert self._calls is not None
        return [
            *pieces,
            *(
                Piece(tool_call=ToolCallPiece(index, self._new_id(), name, arguments))
                for index, (name, arguments) in enumerate(self._calls)
            ),
        ]

    def _passed(self, piece: Piece) -> list[Piece]:
        if self._is_text or piece.reasoning:
            return [piece]
        if piece.tool_call is not None:  # the model does know the syntax
            return [*self._released(), piece]
        text = piece.content
        for start in range(0, len(text), MOST_AT_ONCE):
            self._source.accept(text[start : start + MOST_AT_ONCE])
            if self._ended():
                rest = text[start + MOST_AT_ONCE :]
                return [*self._released(), *([Piece(content=rest)] if rest else [])]
        return []

    def _ended(self) -> bool:
        """Go on reading. Whether it turned out that this is text."""
        try:
            next(self._reading)
        except Malformed:
            return True
        except StopIteration:
            return False
        return False

    def _released(self) -> list[Piece]:
        """All that was held back, as text; so is everything from now on."""
        self._is_text = True
        held = self._source.put_back() + self._source.unread_text()
        return [Piece(content=held)] if held else []

    def _read(self) -> Reading[None]:
        yield
        source = self._source
        source.begin()
        calls: list[tuple[str, str]] = []
        yield from source.blank()
        is_fenced = (yield from source.literal("```")) is not None
        if is_fenced:
            yield from source.literal("json", "tool_call")
            yield from source.blank()
        yield from source.literal(*_OPENS)
        yield from source.blank()
        is_list = (yield from source.literal("[", "functools[")) is not None
        while True:
            calls.append((yield from self._call()))
            yield from source.blank()
            between = (yield from source.literal(",")) if is_list else (yield from source.literal(*_CLOSES, ";"))
            yield from source.blank()
            closed = (yield from source.literal("]")) if is_list else None
            if closed or (not is_list and not (yield from source.sees("{"))):
                break
            if len(calls) == _MOST_CALLS or (is_list and between is None):
                raise Malformed
        yield from source.blank()
        if is_list:
            yield from source.literal(*_CLOSES)
            yield from source.blank()
        if is_fenced:
            yield from source.expect("```")
            yield from source.blank()
        if source.waiting or (yield from source.more()):
            raise Malformed
        self._calls = calls

    def _call(self) -> Reading[tuple[str, str]]:
        text, scanner = yield from self._source.json_object(self._may_be_call)
        name, arguments = named_call(text, scanner, also="parameters")
        if name not in self._parameters:
            raise Malformed
        declared = self._parameters[name]
        if len(scanner.members) == 1 and (declared or {}).get("properties"):
            raise Malformed
        if declared and json.loads(arguments) == declared:  # the tool's description, not a call of it
            raise Malformed
        return name, arguments

    def _may_be_call(self, begun: str) -> bool:
        """Told from an object's first key and the name it gives, so that other JSON is not held back."""
        match = _HEAD.match(begun[:_LONGEST_HEAD])
        if match is None or match["key"] is None:
            return True
        key = match["key"]
        if match["ended"] is None:
            return any(known.startswith(key) for known in _KEYS)
        if key != "name" or match["value"] is None:
            return key in _KEYS
        name = match["name"]
        if name is None:
            return False
        return name in self._parameters if match["done"] else any(known.startswith(name) for known in self._parameters)
