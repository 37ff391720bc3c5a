"""Calls that a model writes as plain JSON: a whole answer only, of a given tool, wherever the text is cut."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from answers import answer, counted_parser, cut
from deepseek.server.parsing import BareCallParser

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "get_weather", "parameters": CITY}},
    {"type": "function", "function": {"name": "now"}},
]
CALL = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
PARIS = ("get_weather", {"city": "Paris"})
CALLS: dict[str, list[tuple[str, Any]]] = {
    CALL: [PARIS],
    f"\n {CALL}\n": [PARIS],
    json.dumps(json.loads(CALL), indent=2): [PARIS],
    f"```json\n{CALL}\n```": [PARIS],
    f"```\n{CALL}\n```\n": [PARIS],
    f"```tool_call\n{CALL}```": [PARIS],
    f"{CALL}\n</tool_call>": [PARIS],
    f"<tool_call>\n{CALL}": [PARIS],
    f"<tools>\n{CALL}\n</tools>": [PARIS],
    f"```json\n<tools>\n[{CALL}, {CALL}]\n</tools>\n```": [PARIS, PARIS],
    f"<|python_tag|>{CALL}": [PARIS],
    f"<function_call>{CALL}</function_call>": [PARIS],
    f"[{CALL}]": [PARIS],
    f"functools[{CALL}]": [PARIS],
    f'[{CALL}, {{"name": "now", "arguments": {{}}}}]': [PARIS, ("now", {})],
    f"{CALL}\n{CALL}": [PARIS, PARIS],
    f"{CALL}; {CALL}": [PARIS, PARIS],
    '{"name": "get_weather", "parameters": {"city": "Paris"}}': [PARIS],
    '{"arguments": {"city": "Paris"}, "name": "get_weather"}': [PARIS],
    '{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}': [PARIS],
    '{"name": "now"}': [("now", {})],
}
TEXTS = [
    "", "\n", "Sure.", f"Sure: {CALL}", f"{CALL} That calls it.", f"```json\n{CALL}\n``` as asked",
    f"```python\n{CALL}\n```",
    '{"name": "other", "arguments": {}}', '{"name": "get_weather"}', '{"name": "get_weather", "arguments": [1]}',
    '{"name": "get_weather", "arguments": {}, "more": 1}', '{"city": "Paris"}', "[]", "[1, 2]", f"[{CALL}, 1]",
    CALL[:-1], CALL[:20], f"[{CALL}", f"```json\n{CALL}", '{"name": 1}', '{"name": {"a": 1}}', "[link](there)",
    "{{ x }}", "f", "<tools>", f"<tools>{CALL}</tools> is one", "<tools>[]</tools>",
    json.dumps({"name": "get_weather", "parameters": CITY}),
    json.dumps({"name": "get_weather", "description": "d", "parameters": CITY}),
]  # fmt: skip


def parser(tools: str | None = "hermes", reasoning: str | None = None, **options: Any) -> BareCallParser:
    numbers = itertools.count()
    return BareCallParser(counted_parser(reasoning, tools, **options), TOOLS, lambda: f"call {next(numbers)}")


def called(found: Any) -> list[tuple[str, Any]]:
    return [(name, json.loads(arguments)) for _, name, arguments in found.calls]


@pytest.mark.parametrize("text", CALLS)
def test_a_whole_answer_of_calls_is_calls(text: str) -> None:
    found = answer(parser(), [text])
    assert called(found) == CALLS[text]
    assert found.content == ""


@pytest.mark.parametrize("text", TEXTS)
def test_everything_else_is_text_to_the_letter(text: str) -> None:
    found = answer(parser(), [text])
    assert (found.content, found.calls) == (text, [])


def test_without_a_call_syntax() -> None:
    assert called(answer(parser(None), [CALL])) == [PARIS]


def test_a_call_in_the_models_own_syntax_after_text_that_could_have_become_one() -> None:
    found = answer(parser(), ["```json\n", f"<tool_call>\n{CALL}\n</tool_call>"])
    assert (found.content, called(found)) == ("```json", [PARIS])


def test_reasoning_comes_before() -> None:
    found = answer(parser("hermes", "qwen3", thinking_open=True), [f"Let me see.</think>\n\n{CALL}"])
    assert (found.reasoning, found.content, called(found)) == ("Let me see.", "", [PARIS])


PARTS = st.sampled_from([*CALLS, *TEXTS, CALL, "<tool_call>", "</tool_call>", "```", "\n", ",", "]", "{", "x" * 5000])


@given(st.one_of(st.sampled_from([*CALLS, *TEXTS]), st.lists(PARTS, max_size=4).map("".join)), st.data())
@settings(max_examples=200, deadline=None)
def test_cuts_change_nothing_and_nothing_is_lost(text: str, data: st.DataObject) -> None:
    whole = answer(parser(), [text])
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    assert answer(parser(), cut(text, places)) == whole
    assert whole.calls or whole.content == text


@pytest.mark.parametrize(
    "text",
    ["Hello", "```python", '{"city', '{"name": "ot', '{"name": 1', "[1", '[{"b', "```json\n[1", '{"name": "nowx'],
)
def test_text_is_given_out_as_soon_as_it_can_be_no_call(text: str) -> None:
    reader = parser()
    given_out = "".join(piece.content for letter in text for piece in reader.feed(letter))
    assert given_out == text
