"""The parser: one pass over an answer, first its reasoning, then content and tool calls.

Text is held back only while it may be the start of a marker or of a call. A call is given out when it is complete, in
one piece: a client never sees arguments that are cut off or are not JSON. What begins like a call and is none comes out
as the content that it is, to the letter.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deepseek.server.parsing.call_format import CallFormat
from deepseek.server.parsing.coder_calls import CoderCalls
from deepseek.server.parsing.deepseek_calls import DeepseekCalls
from deepseek.server.parsing.dsml_calls import DsmlCalls
from deepseek.server.parsing.hermes_calls import HermesCalls
from deepseek.server.parsing.pieces import Malformed, Piece, ToolCallPiece
from deepseek.server.parsing.source import MOST_AT_ONCE, Markers, Reading, Source, markers

REASONING = ("deepseek_r1", "qwen3")
"""Both split `<think>`; with qwen3 a complete tool call also ends reasoning that lacks its `</think>`."""
TOOLS = ("deepseek_v3", "deepseek_v31", "deepseek_v32", "hermes", "qwen3_coder")

_OPEN = "<think>"
_CLOSES = frozenset(("\n</think>", "</think>"))


def new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def make_parser(
    reasoning: str | None,
    tools: str | None,
    *,
    thinking_open: bool = False,
    declared: Sequence[Mapping[str, Any]] | None = None,
    new_id: Callable[[], str] = new_call_id,
) -> "OutputParser":
    """A parser for one answer. None: that part is not looked for, and its markers are content.

    reasoning: one of REASONING. tools: one of TOOLS. thinking_open: the prompt ends within `<think>`.
    declared: the request's tools; qwen3_coder needs their schemas to tell the text "1" from the number.
    Raises ValueError for names that are none.
    """
    if reasoning is not None and reasoning not in REASONING:
        raise ValueError(f"reasoning parser {reasoning!r} is unknown: use one of {', '.join(REASONING)}, or none")
    if tools is not None and tools not in TOOLS:
        raise ValueError(f"tool call parser {tools!r} is unknown: use one of {', '.join(TOOLS)}, or none")
    return OutputParser(reasoning, _format(tools, declared or ()), thinking_open=thinking_open, new_id=new_id)


def _format(tools: str | None, declared: Sequence[Mapping[str, Any]]) -> CallFormat | None:
    if tools == "hermes":
        return HermesCalls()
    if tools == "deepseek_v32":
        return DsmlCalls()
    if tools == "qwen3_coder":
        functions = [tool["function"] for tool in declared if isinstance(tool.get("function"), Mapping)]
        return CoderCalls({function["name"]: function.get("parameters") or {} for function in functions})
    return DeepseekCalls(fenced=tools == "deepseek_v3") if tools else None


class OutputParser:
    """`feed` text as it comes, then `finish` once. Where the text is cut changes only how it is cut into pieces.

    in_reasoning: whether what was fed ends within the reasoning or the marks around it.
    """

    def __init__(
        self, reasoning: str | None, calls: CallFormat | None, *, thinking_open: bool, new_id: Callable[[], str]
    ) -> None:
        self._source = Source()
        self._pieces: list[Piece] = []
        self._calls = calls
        self._opens: Markers = markers(calls.opens if calls else frozenset())
        self._n_calls = 0
        self._new_id = new_id
        self.in_reasoning = thinking_open
        self._reading = self._answer(reasoning, thinking_open)

    def feed(self, text: str) -> list[Piece]:
        for start in range(0, len(text), MOST_AT_ONCE):
            self._source.accept(text[start : start + MOST_AT_ONCE])
            next(self._reading)
        return self._given()

    def finish(self) -> list[Piece]:
        """No more text comes: what was held back."""
        self._source.close()
        for _ in self._reading:
            raise AssertionError("waits for text after the end")
        return self._given()

    def _given(self) -> list[Piece]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _say_content(self, text: str) -> None:
        if not text:
            return
        if self._pieces and self._pieces[-1].content:
            text = self._pieces.pop().content + text
        self._pieces.append(Piece(content=text))

    def _say_reasoning(self, text: str) -> None:
        if not text:
            return
        if self._pieces and self._pieces[-1].reasoning:
            text = self._pieces.pop().reasoning + text
        self._pieces.append(Piece(reasoning=text))

    def _answer(self, reasoning: str | None, thinking_open: bool) -> Reading[None]:
        after_call = False
        if reasoning is not None and (yield from self._begins_reasoning(thinking_open)):
            after_call = yield from self._reasoning(tools_end_it=reasoning == "qwen3")
        self.in_reasoning = False
        while True:
            if after_call:
                opened = yield from self._after_call()
            else:
                opened = yield from self._source.until(self._opens, self._say_content)
            if opened is None and not after_call:
                return
            after_call = opened is not None and (yield from self._call(opened, self._say_content))

    def _begins_reasoning(self, thinking_open: bool) -> Reading[bool]:
        """Whether the answer begins with reasoning. A model may write `<think>` although the prompt did so before."""
        source = self._source
        source.begin()
        blank = yield from source.blank()
        if (yield from source.literal(_OPEN)) is not None:
            self.in_reasoning = True
            yield from source.literal("\n")
            return True
        source.unread(blank.removeprefix("\n") if thinking_open else blank)
        return thinking_open

    def _reasoning(self, *, tools_end_it: bool) -> Reading[bool]:
        """Read reasoning to its end; the line breaks around `</think>` belong to it. Whether a call ended it."""
        ends = markers(_CLOSES | (self._calls.opens if self._calls and tools_end_it else frozenset()))
        while True:
            found = yield from self._source.until(ends, self._say_reasoning)
            if found is None:
                return False
            if found in _CLOSES:
                if (yield from self._source.literal("\n")):
                    yield from self._source.literal("\n")
                return False
            if (yield from self._call(found, self._say_reasoning)):
                return True

    def _after_call(self) -> Reading[str | None]:
        """Pass over what ends a block of calls. What opens the next one, else None."""
        assert self._calls is not None
        source = self._source
        while True:
            source.begin()
            blank = yield from source.blank()
            found = yield from source.literal(*self._calls.closes, *self._calls.opens)
            if found is None:
                source.begin()
                if source.waiting:
                    self._say_content(blank)
                return None
            if found in self._calls.opens:
                return blank + found

    def _call(self, opened: str, say: Callable[[str], None]) -> Reading[bool]:
        """Read a call after what opened it. False where it is none; `say` then has its text."""
        assert self._calls is not None
        try:
            name, arguments = yield from self._calls.read(self._source, opened.lstrip())
        except Malformed:
            said = self._source.put_back()
            place = self._opens.last(said, len(opened))
            say(said[:place])
            if place is not None:
                self._source.unread(said[place:])
            return False
        self._pieces.append(Piece(tool_call=ToolCallPiece(self._n_calls, self._new_id(), name, arguments)))
        self._n_calls += 1
        return True
