"""Calls that must come: what they are held to, and how they are read wherever the text is cut."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepseek.server.forced_calls import CallsParser, parser_of_arguments, schema_of_arguments, schema_of_calls

TEXT = (
    '[ {"name": "a b\\"c", "arguments": { "x": [1, {"y": "} ]\\\\" }], "z": {} } },\n  {"name":"f","arguments":{\n}}\n]'
)
WANTED = [('a b"c', '{"x":[1,{"y":"} ]\\\\"}],"z":{}}'), ("f", "{}")]


def calls(pieces: list[Any]) -> list[tuple[str, str]]:
    found: list[list[str]] = []
    for piece in pieces:
        call = piece.tool_call
        if call.name is not None:
            assert call.index == len(found)
            found.append([call.name, ""])
        found[call.index][1] += call.arguments
    return [(name, arguments) for name, arguments in found]


@given(cuts=st.lists(st.integers(0, len(TEXT)), max_size=8))
def test_calls_are_the_same_wherever_the_text_is_cut(cuts: list[int]) -> None:
    parser = CallsParser(lambda: "id")
    places = [0, *sorted(cuts), len(TEXT)]
    pieces = [piece for start, end in pairwise(places) for piece in parser.feed(TEXT[start:end])]
    assert calls([*pieces, *parser.finish()]) == WANTED


def test_one_call_is_no_array() -> None:
    parser = CallsParser(lambda: "id")
    assert calls(parser.feed('{"name": "f", "arguments": {"city": "New  York"}}')) == [("f", '{"city":"New  York"}')]
    schema = json.loads(str(schema_of_calls([{"name": "f"}], several=False).json_schema))
    assert schema["anyOf"][0]["properties"]["name"] == {"const": "f"}


@given(cuts=st.lists(st.integers(0, 34), max_size=4))
def test_arguments_alone_are_a_call_of_the_named_function(cuts: list[int]) -> None:
    text = '{\n  "city": "New  York",\n "n": [{}] }'
    parser = parser_of_arguments('a "b"', lambda: "id")
    places = [0, *sorted(cuts), len(text)]
    pieces = [piece for start, end in pairwise(places) for piece in parser.feed(text[start:end])]
    assert calls(pieces) == [('a "b"', '{"city":"New  York","n":[{}]}')]


def parameters(function: dict[str, Any]) -> Any:
    schema = json.loads(str(schema_of_calls([function], several=True).json_schema))
    assert "$ref" not in str(schema)  # such a schema would be tried in a process of its own first
    return schema["items"]["anyOf"][0]["properties"]["arguments"]


NOTHING: list[dict[str, Any]] = [
    {}, {"parameters": None}, {"parameters": {}}, {"parameters": {"type": "object"}},
    {"parameters": {"type": "object", "properties": {}}},
    {"parameters": {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {}}},
]  # fmt: skip


@pytest.mark.parametrize("function", NOTHING)
def test_a_tool_without_parameters_takes_none(function: dict[str, Any]) -> None:
    nothing = {"type": "object", "properties": {}, "additionalProperties": False}
    assert parameters({"name": "now", **function}) == nothing
    assert json.loads(str(schema_of_arguments({"name": "now", **function}).json_schema)) == nothing


@pytest.mark.parametrize("declared", [{"type": "object", "additionalProperties": {"type": "integer"}},
                                      {"type": "object", "additionalProperties": True}])  # fmt: skip
def test_a_tool_that_takes_a_map_is_given_one(declared: dict[str, Any]) -> None:
    assert parameters({"name": "f", "parameters": declared}) == declared


def test_two_tools_may_define_different_things_under_one_name() -> None:
    functions = [
        {"name": name, "parameters": {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": kind}}}}
        for name, kind in (("f", "string"), ("g", "integer"))
    ]
    schema = json.loads(str(schema_of_calls(functions, several=True).json_schema))
    for place, kind in enumerate(("string", "integer")):
        definition = schema["$defs"][str(place)]
        assert definition["properties"]["a"] == {"$ref": f"#/$defs/{place}/$defs/A"}
        assert definition["$defs"]["A"] == {"type": kind}
