"""What holds for every output: cuts change nothing, nothing is lost, nothing raises, work grows with the text only."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from answers import answer, counted_parser, cut
from deepseek.server.parsing import TOOLS, OutputParser
from deepseek.server.parsing.json_text import is_json, strict
from deepseek.server.parsing.source import MOST_AT_ONCE, Source
from recorded_outputs import NOT_CALLS, RECORDED

MARKERS = [
    "<think>", "</think>", "<tool_call>", "</tool_call>", "\n<tool_call>", "<function=f>", "</function>",
    "<parameter=a>", "</parameter>", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "function",
    "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "\n```json\n", "\n```", "<｜DSML｜function_calls>",
    "</｜DSML｜function_calls>", '<｜DSML｜invoke name="f">', "</｜DSML｜invoke>",
    '<｜DSML｜parameter name="a" string="true">', '<｜DSML｜parameter name="b" string="false">', "</｜DSML｜parameter>",
]  # fmt: skip
WHOLE = [case.text for case in RECORDED.values()] + [text for _, text in NOT_CALLS.values()]
FRAGMENTS = st.one_of(
    st.sampled_from(MARKERS),
    st.sampled_from(MARKERS).flatmap(lambda marker: st.integers(1, len(marker)).map(lambda size: marker[:size])),
    st.sampled_from(['{"name": "f", "arguments": ', "{}", '{"a": ', '"', "\\", "}", "]", "[1, ", "null", "1e5", "f"]),
    st.sampled_from(["\n", "\n\n", " ", "text", "<", "é｜", "\U0001f60a"]),
    st.sampled_from(WHOLE),
    st.text(max_size=5),
)
OUTPUTS = st.lists(FRAGMENTS, max_size=12).map("".join)
PARSERS = st.sampled_from([None, *TOOLS])
CLOSES = {
    "deepseek_v3": "<｜tool▁calls▁end｜>",
    "deepseek_v31": "<｜tool▁calls▁end｜>",
    "deepseek_v32": "</｜DSML｜function_calls>",
    "hermes": "(?!)",
    "qwen3_coder": "</tool_call>",
}
"""What passes without being said after a call, with blanks before it."""


@given(OUTPUTS, PARSERS, st.sampled_from([None, "deepseek_r1", "qwen3"]), st.booleans(), st.data())
@settings(max_examples=300, deadline=None)
def test_cuts_change_nothing(
    text: str, tools: str | None, reasoning: str | None, thinking: bool, data: st.DataObject
) -> None:
    def parser() -> OutputParser:
        return counted_parser(reasoning, tools, thinking_open=thinking)

    whole = answer(parser(), [text])
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    assert answer(parser(), cut(text, places)) == whole
    assert answer(parser(), text) == whole
    for _, _, arguments in whole.calls:
        assert isinstance(json.loads(arguments), dict)


class Listening(OutputParser):
    """Notes what was given out and what each call was read from, in order."""

    said: list[tuple[str, bool]]

    def _call(self, opened: str, say: Callable[[str], None]) -> Any:
        before = "".join(piece.content for piece in self._pieces)
        result = yield from super()._call(opened, say)
        if result:
            self.said += [(before, False), (self._source.put_back(), True)]
            self._pieces.clear()
        return result


@given(OUTPUTS, st.sampled_from(TOOLS))
@settings(max_examples=300, deadline=None)
def test_nothing_is_lost(text: str, tools: str) -> None:
    """Content and the texts of calls are the output, but for blanks and closing markers after a call."""
    parser = counted_parser(None, tools)
    parser.__class__ = Listening
    assert isinstance(parser, Listening)
    parser.said = []
    for letter in text:
        parser.said += [(piece.content, False) for piece in parser.feed(letter) if piece.content]
    parser.said += [(piece.content, False) for piece in parser.finish() if piece.content]
    passes = re.compile(f"([ \\t\\r\\n]*{CLOSES[tools]})*")
    place = 0
    for said, is_call in parser.said:
        assert text.startswith(said, place), (said, text[place:])
        place += len(said)
        if is_call and (match := passes.match(text, place)):
            place = match.end()
    assert not text[place:].strip(" \t\r\n")
    assert place == len(text) or parser.said[-1][1]


@given(st.lists(st.sampled_from(["<think>", "</think>", "\n", " ", "a", "</thin", "<"]), max_size=10), st.booleans())
@settings(max_examples=300, deadline=None)
def test_reasoning_is_split_as_a_plain_search_would(fragments: list[str], thinking: bool) -> None:
    text = "".join(fragments)
    opened = re.match(r"[ \t\r\n]*<think>\n?", text)
    reasoning, content = "", text
    if opened or thinking:
        body = text[opened.end() :] if opened else text.removeprefix("\n")
        reasoning, closed, content = body.partition("</think>")
        reasoning = reasoning.removesuffix("\n") if closed else reasoning
        content = content.removeprefix("\n").removeprefix("\n")
    for parts in ([text], list(text)):
        found = answer(counted_parser("deepseek_r1", None, thinking_open=thinking), parts)
        assert (found.reasoning, found.content) == (reasoning, content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.sampled_from([None, 1]), st.booleans())
def test_all_json_is_json(value: object, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert is_json(text)
    assert strict(text) == text


@given(st.text(alphabet='{}[]",:\\ \n0123456789.eE+-truefalsn\u00e9u', max_size=14))
@settings(max_examples=500, deadline=None)
def test_what_is_json_agrees_with_the_standard_library(text: str) -> None:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        value = json.loads(text, strict=False, parse_constant=refuse)
    except ValueError:
        assert not is_json(text)
        return
    assert is_json(text)
    assert json.loads(strict(text)) == value


@given(st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), JSON, max_size=4), st.sampled_from(TOOLS))
@settings(max_examples=200, deadline=None)
def test_calls_written_in_a_format_are_read_from_it(arguments: dict[str, Any], tools: str) -> None:
    if tools == "qwen3_coder":  # texts are written bare there, and come back by their declared type
        arguments = {key: value for key, value in arguments.items() if not isinstance(value, str)}
    text = "Well." + written(arguments, tools) * 2 + "Done."
    if any("</｜DSML｜parameter>" in value for value in arguments.values() if isinstance(value, str)):
        return
    found = answer(counted_parser(None, tools), [text])
    assert found.content == "Well.Done."
    assert [(name, json.loads(said)) for _, name, said in found.calls] == [("f", arguments)] * 2


def written(arguments: dict[str, Any], tools: str) -> str:
    body = json.dumps(arguments, ensure_ascii=False)
    if tools == "hermes":
        return f'\n<tool_call>\n{{"name": "f", "arguments": {body}}}\n</tool_call>'
    if tools == "deepseek_v3":
        return f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{body}\n```<｜tool▁call▁end｜>"
    if tools == "deepseek_v31":
        return (
            f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{body}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        )
    if tools == "qwen3_coder":
        values = "".join(f"<parameter={key}>\n{json.dumps(value)}\n</parameter>\n" for key, value in arguments.items())
        return f"\n<tool_call>\n<function=f>\n{values}</function>\n</tool_call>"
    values = "".join(
        f'<｜DSML｜parameter name="{key}" string="{"true" if isinstance(value, str) else "false"}">'
        f"{value if isinstance(value, str) else json.dumps(value)}</｜DSML｜parameter>\n"
        for key, value in arguments.items()
    )
    return (
        f'\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="f">\n{values}</｜DSML｜invoke>\n</｜DSML｜function_calls>'
    )


HOSTILE: dict[str, tuple[str, Callable[[int], str]]] = {
    "blanks": ("hermes", lambda n: "\n" * n),
    "half markers": ("hermes", lambda n: "<tool_cal" * n),
    "openings": ("hermes", lambda n: "<tool_call>" * n),
    "openings in open strings": ("hermes", lambda n: '<tool_call>{"a' * n),
    "brackets": ("hermes", lambda n: '<tool_call>{"name": ' + "[" * n),
    "escapes": ("hermes", lambda n: '<tool_call>{"name": "' + "\\u0041" * n),
    "members": ("hermes", lambda n: '<tool_call>{"name": "f", "arguments": {' + '"a": 1, ' * n),
    "calls": ("hermes", lambda n: '<tool_call>{"name": "f"}</tool_call>\n' * n),
    "long number": ("deepseek_v31", lambda n: '<｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a": ' + "1" * n),
    "long string": ("deepseek_v3", lambda n: RECORDED["deepseek: v3 two calls"].text[:300] + '"' + "y" * n),
    "long name": ("deepseek_v31", lambda n: "<｜tool▁call▁begin｜>" + "f" * n),
    "parameters": (
        "deepseek_v32",
        lambda n: (
            '<｜DSML｜invoke name="f">' + '<｜DSML｜parameter name="a" string="true">' * n + "</｜DSML｜parameter>"
        ),
    ),
    "long value": ("qwen3_coder", lambda n: "<function=f><parameter=a>" + "</paramete" * n),
    "plain": ("qwen3_coder", lambda n: "word " * n),
}


@pytest.mark.parametrize("cut_up", [False, True], ids=["whole", "by letter"])
@pytest.mark.parametrize("name", HOSTILE)
def test_work_grows_no_faster_than_the_text(name: str, cut_up: bool) -> None:
    tools, make = HOSTILE[name]
    unit = len(make(2)) - len(make(1))
    sizes = (2 * MOST_AT_ONCE, 4 * MOST_AT_ONCE)  # from here on what is bounded, a piece or a marker, grows no more
    once, twice = (work_on(tools, make(size // unit), cut_up) for size in sizes)
    assert twice < 2.3 * once + 1000


def work_on(tools: str, text: str, cut_up: bool) -> int:
    """Functions called, and characters copied by the buffer, a memory block's worth counting as one call."""
    work = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal work
        work += event in ("call", "c_call")

    def counted(method: Callable[[Source, str], None]) -> Callable[[Source, str], None]:
        def call(source: Source, more: str) -> None:
            nonlocal work
            method(source, more)
            work += len(source._text) // 64

        return call

    accept, unread = Source.accept, Source.unread
    parser = counted_parser("qwen3", tools)
    try:
        Source.accept, Source.unread = counted(accept), counted(unread)  # type: ignore[method-assign]
        sys.setprofile(count)
        for part in text if cut_up else [text]:
            parser.feed(part)
        parser.finish()
    finally:
        sys.setprofile(None)
        Source.accept, Source.unread = accept, unread  # type: ignore[method-assign]
    return work


def test_what_waits_stays_small() -> None:
    for tools, make in HOSTILE.values():
        parser = counted_parser(None, tools)
        for part in parts_of(make(2000), 11):
            parser.feed(part)
            assert parser._source.waiting < 300


def parts_of(text: str, size: int) -> Iterator[str]:
    return iter(cut(text, range(size, len(text), size)))
