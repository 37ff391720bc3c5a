"""A format beside tools that may be called: whatever the grammar lets a model write is calls or text in the format."""

import json
import random
from typing import Any

import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer

from answers import answer, counted_parser
from deepseek.engine.grammars import fault_of, grammar_of
from deepseek.sampling import ComposedOutput, StructuredOutput
from deepseek.server.answer_grammars import after_reasoning, format_or_calls, leaves_bare_calls
from deepseek.server.parsing import TOOLS, BareCallParser
from live_server import Live

FORMAT = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
UNITS = {"$ref": "#/$defs/unit"}
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 6},
            "unit": UNITS,
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
            "mode": {"type": "string", "enum": ["now", "null", "a b"]},
            "near": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
        "$defs": {"unit": {"enum": ["celsius", "fahrenheit"]}},
    },
}
CLOCK: dict[str, Any] = {"name": "now"}
FUNCTIONS = [WEATHER, CLOCK]
SCHEMAS = {
    "get_weather": WEATHER["parameters"],
    "now": {"type": "object", "properties": {}, "additionalProperties": False},
}
DECLARED = [{"type": "function", "function": one} for one in FUNCTIONS]
MARKS = ["<tool_call>", "</tool_call>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",
         "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "｜DSML｜"]  # fmt: skip
ASCII = [*range(32, 127), 10]


class Bytes:
    """Single bytes, an end token, and the marks as special tokens."""

    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([value]) for value in range(256)), b"<end>", *(mark.encode() for mark in MARKS))
    special_token_ids = tuple(range(256, 257 + len(MARKS)))
    is_tokenizer_wrapper = True

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


SPECIAL = {mark: 257 + place for place, mark in enumerate(MARKS)}
VOCABULARY: Any = LLTokenizer(Bytes())  # type: ignore[arg-type]


def matcher(wanted: StructuredOutput) -> Any:
    made = LLMatcher(VOCABULARY, grammar_of(wanted), log_level=0)
    assert not made.is_error(), made.get_error()
    return made


def accepts(wanted: StructuredOutput, text: str) -> bool:
    state = matcher(wanted)
    return all(state.consume_token(byte) for byte in text.encode()) and state.is_accepting()


def is_valid(text: str, schema: Any) -> bool:
    return accepts(StructuredOutput(json_schema=schema), text)


def walk(wanted: StructuredOutput, seed: int, most: int = 4000) -> str | None:
    """A text that the grammar allows, drawn at random; None where it did not end."""
    state, draw, written = matcher(wanted), random.Random(seed), b""
    for _ in range(most):
        words = np.frombuffer(state.compute_bitmask(), np.uint8)
        possible = np.flatnonzero(np.unpackbits(words, bitorder="little")[: len(Bytes.tokens)])
        tokens = [int(one) for one in possible if one in ASCII or one > 256]
        if state.is_accepting() and (not tokens or draw.random() < 0.5):
            return written.decode()
        token = draw.choice(tokens or [int(one) for one in possible if one != 256])
        assert state.consume_token(token)
        written += Bytes.tokens[token]
    return None


def wanted(syntax: str | None, *, special: bool = False, several: bool = True, bare: bool = False) -> StructuredOutput:
    return format_or_calls(
        StructuredOutput(json_schema=FORMAT), FUNCTIONS, syntax, SPECIAL if special else {}, several=several, bare=bare
    )


def parsed(syntax: str | None, text: str, *, bare: bool = False) -> Any:
    parser: Any = counted_parser(None, syntax, declared=DECLARED)
    return answer(BareCallParser(parser, DECLARED, lambda: "id") if bare else parser, [text])


def check(found: Any, text: str) -> bool:
    """Whether these were calls."""
    for _, name, arguments in found.calls:
        assert is_valid(arguments, SCHEMAS[name])
    if found.calls:
        assert found.content.strip() == "", text
    else:
        assert is_valid(found.content.strip(), FORMAT)
    return bool(found.calls)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("syntax", TOOLS)
def test_every_answer_is_calls_or_in_the_format(syntax: str, special: bool) -> None:
    grammar = wanted(syntax, special=special)
    texts = [text for seed in range(30) if (text := walk(grammar, seed)) is not None]
    kinds = {check(parsed(syntax, text), text) for text in texts}
    assert kinds == {False, True}


@pytest.mark.parametrize("syntax", ["hermes", None])
def test_bare_calls_too(syntax: str | None) -> None:
    grammar = wanted(syntax, bare=True)
    texts = [text for seed in range(40) if (text := walk(grammar, seed)) is not None]
    assert {check(parsed(syntax, text, bare=True), text) for text in texts} == {False, True}


CALL = '{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}'
DSML = (
    '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" string="true">Paris'
    '</｜DSML｜parameter>\n<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
    "</｜DSML｜function_calls>"
)
AS_TEMPLATES_TELL = {
    "hermes": f"<tool_call>\n{CALL}\n</tool_call>",
    "qwen3_coder": "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n2\n"
    "</parameter>\n</function>\n</tool_call>",
    "deepseek_v3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
    '{"city": "Paris", "days": 2}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    "deepseek_v31": '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris", "days": 2}'
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "deepseek_v32": f"\n\n{DSML}",
}  # fmt: skip


@pytest.mark.parametrize("syntax", TOOLS)
def test_calls_as_templates_tell_to_write_them(syntax: str) -> None:
    text = AS_TEMPLATES_TELL[syntax]
    assert accepts(wanted(syntax), text)
    assert accepts(after_reasoning(wanted(syntax)), f"I need it.</think>\n\n{text.lstrip()}")
    assert not accepts(wanted(syntax), text.replace("get_weather", "get_father"))
    assert not accepts(wanted(syntax), text.replace("2", "20"))
    assert not accepts(wanted(syntax), f"Sure. {text}")


def test_one_call_or_several() -> None:
    two = f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call>"
    assert accepts(wanted("hermes"), two)
    assert not accepts(wanted("hermes", several=False), two)
    assert accepts(wanted("hermes", bare=True), f"[{CALL}, {CALL}]")
    assert not accepts(wanted("hermes", bare=True, several=False), f"[{CALL}, {CALL}]")


@pytest.mark.parametrize("fields", [{"json_object": True}, {"regex": "[a-c]{3}"}, {"choice": ("yes", "no")}])
def test_other_formats(fields: dict[str, Any]) -> None:
    grammar = format_or_calls(StructuredOutput(**fields), FUNCTIONS, "hermes", {}, several=True, bare=False)
    texts = {"json_object": '{"a": 1}', "regex": "abc", "choice": "no"}
    for kind, text in texts.items():
        assert accepts(grammar, text) == (kind in fields)
    assert accepts(grammar, AS_TEMPLATES_TELL["hermes"])


def test_a_grammar_of_the_client_stays_alone() -> None:
    own = StructuredOutput(grammar='start: "a"')
    assert format_or_calls(own, FUNCTIONS, "hermes", {}, several=True, bare=True) is own


def test_parameters_that_no_grammar_holds_may_be_any_object() -> None:
    strange = {"name": "put", "parameters": {"type": "object", "properties": {"a": {"not": {"type": "null"}}}}}
    grammar = format_or_calls(
        StructuredOutput(json_schema=FORMAT), [WEATHER, strange], "hermes", {}, several=True, bare=False
    )
    assert accepts(grammar, '<tool_call>\n{"name": "put", "arguments": {"a": [1]}}\n</tool_call>')
    assert accepts(grammar, AS_TEMPLATES_TELL["hermes"])
    assert not accepts(grammar, AS_TEMPLATES_TELL["hermes"].replace("2", "20"))


def test_a_format_that_is_wrong_is_named() -> None:
    wrong = StructuredOutput(json_schema={"type": "array", "uniqueItems": True})
    assert format_or_calls(wrong, FUNCTIONS, "hermes", {}, several=True, bare=False) == wrong


def test_text_of_a_schema_is_no_other_grammar() -> None:
    schema = {**FORMAT, "description": "root ::= <[3]> %json"}
    grammar = format_or_calls(StructuredOutput(json_schema=schema), FUNCTIONS, "hermes", {}, several=True, bare=False)
    assert fault_of(grammar) is None
    assert accepts(grammar, '{"name": "Bob", "age": 3}')


def test_a_format_with_arguments_is_not_taken_for_a_call() -> None:
    assert leaves_bare_calls(StructuredOutput(json_schema=FORMAT))
    assert leaves_bare_calls(StructuredOutput(json_object=True))
    plan = {"type": "object", "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}}}
    assert not leaves_bare_calls(StructuredOutput(json_schema=plan))


def test_special_tokens_are_named_only_by_composed_grammars() -> None:
    assert isinstance(grammar := wanted("hermes", special=True), ComposedOutput)
    assert grammar.special_tokens == (257, 258)
    assert grammar.kind == "structured.json_schema"


SHAPE = {"type": "json_schema", "name": "person", "schema": FORMAT}
SAID = [{"role": "user", "content": "go"}]
RESPONSES_TOOLS = [{"type": "function", **one} for one in FUNCTIONS]
MESSAGES_TOOLS = [
    {"name": one["name"], "input_schema": one.get("parameters", {"type": "object"})} for one in FUNCTIONS
]  # fmt: skip


def from_chat(server: Live, seed: int) -> tuple[bool, str, list[tuple[str, Any]]]:
    """Whether the answer is whole, its text, its calls."""
    shape = {"type": "json_schema", "json_schema": {"name": "person", "schema": FORMAT}}
    body = {"messages": SAID, "tools": DECLARED, "max_tokens": 600, "seed": seed, "response_format": shape}
    choice = server.post("/v1/chat/completions", body).json()["choices"][0]
    calls = [one["function"] for one in choice["message"].get("tool_calls") or []]
    told = [(one["name"], one["arguments"]) for one in calls]
    return choice["finish_reason"] != "length", choice["message"]["content"] or "", told


def from_responses(server: Live, seed: int) -> tuple[bool, str, list[tuple[str, Any]]]:
    body = {"input": "go", "tools": RESPONSES_TOOLS, "max_output_tokens": 600, "seed": seed, "text": {"format": SHAPE}}
    answer = server.post("/v1/responses", body).json()
    said = [part["text"] for item in answer["output"] if item["type"] == "message" for part in item["content"]]
    calls = [(one["name"], one["arguments"]) for one in answer["output"] if one["type"] == "function_call"]
    return answer["status"] == "completed", "".join(said), calls


def from_messages(server: Live, seed: int) -> tuple[bool, str, list[tuple[str, Any]]]:
    body = {"model": "tiny", "messages": SAID, "tools": MESSAGES_TOOLS, "max_tokens": 600, "seed": seed,
            "output_config": {"format": {"type": "json_schema", "schema": FORMAT}}}  # fmt: skip
    answer = server.post("/v1/messages", body).json()
    said = [block["text"] for block in answer["content"] if block["type"] == "text"]
    calls = [(one["name"], json.dumps(one["input"])) for one in answer["content"] if one["type"] == "tool_use"]
    return answer["stop_reason"] != "max_tokens", "".join(said), calls


@pytest.mark.parametrize("ask", [from_chat, from_responses, from_messages])
def test_every_route_gives_calls_or_the_format(tiny: Live, ask: Any) -> None:
    kinds = set()
    for seed in range(12):
        is_whole, text, calls = ask(tiny, seed)
        for name, arguments in calls:
            assert is_valid(arguments, SCHEMAS[name])
        if is_whole:
            assert calls or is_valid(text.strip(), FORMAT)
            kinds.add(bool(calls))
    assert kinds == {False, True}


@pytest.mark.parametrize("seed", range(6))
def test_without_calls_the_format_is_alone(tiny: Live, seed: int) -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "person", "schema": FORMAT}}
    body = {"messages": SAID, "tools": DECLARED, "tool_choice": "none", "max_tokens": 600, "seed": seed}
    message = tiny.post("/v1/chat/completions", {**body, "response_format": shape}).json()["choices"][0]["message"]
    assert "tool_calls" not in message
    assert is_valid(message["content"].strip(), FORMAT)
