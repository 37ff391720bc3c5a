"""Recorded outputs of models, whole and cut anywhere; outputs that are no calls; detection."""

import codecs
import json
import re
from pathlib import Path

import pytest

from answers import Answer, answer, counted_parser, cut
from deepseek.server.parsing import REASONING, TOOLS, detect, make_parser, thinking_open
from deepseek.server.parsing.call_format import LONGEST_NAME, NAME
from deepseek.server.protocol.tools import TOOL_NAME
from recorded_outputs import NOT_CALLS, RECORDED, Recorded

TEMPLATES = Path(__file__).parent.parent / "tokenizer" / "templates"


def parsed(case: Recorded, parts: list[str]) -> Answer:
    options = {"thinking_open": case.thinking_open, "declared": case.declared}
    return answer(counted_parser(case.reasoning_parser, case.tool_parser, **options), parts)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_output_means_what_it_meant(name: str) -> None:
    case = RECORDED[name]
    found = parsed(case, [case.text])
    assert (found.content, found.reasoning) == (case.content, case.reasoning)
    assert [(name, json.loads(arguments)) for _, name, arguments in found.calls] == case.calls
    assert [call_id for call_id, _, _ in found.calls] == [f"call {number}" for number in range(len(found.calls))]


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_output_cut_anywhere_means_the_same(name: str) -> None:
    case = RECORDED[name]
    whole = parsed(case, [case.text])
    for place in range(len(case.text) + 1):
        assert parsed(case, cut(case.text, [place])) == whole
    for size in (1, 2, 3, 7):
        assert parsed(case, cut(case.text, range(size, len(case.text), size))) == whole


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_output_cut_at_every_byte_means_the_same(name: str) -> None:
    case = RECORDED[name]
    decoder = codecs.getincrementaldecoder("utf-8")()
    parts = [decoder.decode(bytes([byte])) for byte in case.text.encode()]
    assert parsed(case, parts) == parsed(case, [case.text])


@pytest.mark.parametrize("name", NOT_CALLS)
def test_what_is_no_call_is_content_to_the_letter(name: str) -> None:
    tools, text = NOT_CALLS[name]
    for parts in ([text], list(text), *(cut(text, [place]) for place in range(len(text)))):
        assert answer(counted_parser(None, tools), parts) == Answer(content=text)


@pytest.mark.parametrize("tools", TOOLS)
def test_a_call_cut_off_is_content(tools: str) -> None:
    case = next(case for case in RECORDED.values() if case.tool_parser == tools and case.calls)
    for end in range(len(case.text)):
        text = case.text[:end]
        found = parsed(case, [text])
        assert parsed(case, list(text)) == found
        for _, name, arguments in found.calls:
            assert (name, json.loads(arguments)) in case.calls
        if not found.calls and not case.reasoning_parser:
            assert found.content == text


def test_text_is_held_only_while_it_may_be_a_marker() -> None:
    parser = make_parser(None, "hermes")
    given = [sum(len(piece.content) for piece in parser.feed(letter)) for letter in "a <tool <tool_ b"]
    assert given == [1, 1, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 7, 1]


def test_a_call_is_given_up_at_the_first_letter_that_makes_it_none() -> None:
    parser = make_parser(None, "hermes")
    assert not parser.feed('<tool_call>{"name"')
    (piece,) = parser.feed(",")
    assert piece.content == '<tool_call>{"name",'


def test_a_call_comes_as_soon_as_it_is_complete() -> None:
    parser = make_parser(None, "deepseek_v31")
    assert not parser.feed("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end")
    (piece,) = parser.feed("｜>")
    assert piece.tool_call is not None
    assert (piece.tool_call.index, piece.tool_call.name, piece.tool_call.arguments) == (0, "f", "{}")


def test_a_good_call_after_a_broken_one_is_found() -> None:
    good = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    unclosed = '<tool_call>\n{"name": "f", "arguments": {"a": "open}\n</tool_call>\n'
    for broken in (unclosed, "<tool_call>{", "<tool_call>"):
        found = answer(counted_parser(None, "hermes"), [broken + good])
        assert found.content == broken.removesuffix("\n")
        assert [call[1:] for call in found.calls] == [["f", "{}"]]
        assert answer(counted_parser(None, "hermes"), broken + good) == found


def test_line_breaks_that_a_model_left_in_a_string_are_escaped() -> None:
    text = '<tool_call>{"name": "f", "arguments": {"code": "a\n\tb", "n":\n1}}</tool_call>'
    ((_, _, arguments),) = answer(counted_parser(None, "hermes"), [text]).calls
    assert json.loads(arguments) == {"code": "a\n\tb", "n": 1}


def test_numbers_stay_as_they_were_written() -> None:
    text = '<tool_call>{"arguments": {"n": 1.10e2, "big": 123456789012345678901234567890}, "name": "f"}</tool_call>'
    ((_, _, arguments),) = answer(counted_parser(None, "hermes"), [text]).calls
    assert arguments == '{"n": 1.10e2, "big": 123456789012345678901234567890}'


def test_reasoning_does_not_call_with_deepseek_and_text_may_speak_of_thinking() -> None:
    call = "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
    found = answer(counted_parser("deepseek_r1", "deepseek_v31", thinking_open=True), [call])
    assert found == Answer(reasoning=call)
    text = "The tag <think> opens and </think> closes."
    assert answer(counted_parser("deepseek_r1", None), [text]) == Answer(content=text)


def test_without_parsers_every_marker_is_content() -> None:
    text = "<think>a</think><tool_call>{}</tool_call>"
    assert answer(counted_parser(None, None), [text]) == Answer(content=text)


def test_values_of_undeclared_parameters_are_json_where_they_are_some() -> None:
    text = "<function=f><parameter=a>1</parameter><parameter=b>x y</parameter><parameter=c>True</parameter></function>"
    ((_, _, arguments),) = answer(counted_parser(None, "qwen3_coder"), [text]).calls
    assert json.loads(arguments) == {"a": 1, "b": "x y", "c": "True"}
    text = '<function=f><parameter=a>{"s": "1\n2"}</parameter></function>'
    ((_, _, arguments),) = answer(counted_parser(None, "qwen3_coder"), [text]).calls
    assert json.loads(arguments) == {"a": {"s": "1\n2"}}


def test_values_of_declared_parameters_have_their_type() -> None:
    text = "<function=f><parameter=a>1</parameter><parameter=b>x y</parameter><parameter=c>True</parameter></function>"
    types = {"a": {"type": "string"}, "b": {"type": ["string", "null"]}, "c": {"type": "boolean"}}
    declared = [{"type": "function", "function": {"name": "f", "parameters": {"properties": types}}}]
    ((_, _, arguments),) = answer(counted_parser(None, "qwen3_coder", declared=declared), [text]).calls
    assert json.loads(arguments) == {"a": "1", "b": "x y", "c": True}


def test_ids_are_unique_and_of_the_usual_form() -> None:
    call = '<tool_call>{"name": "f"}</tool_call>'
    parser = make_parser(None, "hermes")
    ids = [piece.tool_call.id for piece in parser.feed(call * 100) if piece.tool_call]
    assert len(set(ids)) == 100
    assert all(re.fullmatch("call_[0-9a-f]{24}", call_id or "") for call_id in ids)


@pytest.mark.parametrize(("reasoning", "tools"), [("r2", None), (None, "xml"), ("", None)])
def test_unknown_parsers_are_refused_by_name(reasoning: str | None, tools: str | None) -> None:
    with pytest.raises(ValueError, match="is unknown: use one of"):
        make_parser(reasoning, tools)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("deepseek-v3", (None, "deepseek_v3")),
        ("deepseek-r1", ("deepseek_r1", "deepseek_v3")),
        ("deepseek-v3.1", ("deepseek_r1", "deepseek_v31")),
        ("qwen2.5", (None, "hermes")),
        ("qwen3", ("qwen3", "hermes")),
    ],
)
def test_published_templates_name_their_parsers(template: str, expected: tuple[str | None, str | None]) -> None:
    assert detect((TEMPLATES / f"{template}.jinja").read_text(), "any") == expected
    assert expected[0] in (*REASONING, None)
    assert expected[1] in (*TOOLS, None)


def test_detection_without_or_with_other_templates() -> None:
    assert detect("", "deepseek_v32") == ("deepseek_r1", "deepseek_v32")
    assert detect("", "llama") == (None, None)
    assert detect("{{ messages[0].content }}", "llama") == (None, None)
    assert detect("<tool_call>\n<function=example>", "qwen3_moe") == (None, "qwen3_coder")


def test_whether_the_prompt_opened_the_reasoning() -> None:
    assert thinking_open("<｜Assistant｜><think>\n")
    assert thinking_open("<｜Assistant｜><think>")
    assert not thinking_open("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not thinking_open("<|im_start|>assistant\n")
    assert thinking_open("...<think>\nFirst", continued="<think>\nFirst")
    assert not thinking_open("...", continued="<think>\nFirst</think>Then")


@pytest.mark.parametrize(
    "name", ["get_weather", "mcp/context7/query:docs", "天气", "a b", "a\tb", 'a"b', "<a>", "a'", "a{", "a｜b"]
)
def test_a_tool_may_have_the_names_that_the_parsers_read(name: str) -> None:
    assert bool(re.match(TOOL_NAME, name)) == bool(NAME.fullmatch(name))
    assert not re.match(TOOL_NAME, "")
    assert re.match(TOOL_NAME, "a" * LONGEST_NAME)
    assert not re.match(TOOL_NAME, "a" * (LONGEST_NAME + 1))
