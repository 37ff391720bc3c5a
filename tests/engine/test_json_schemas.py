"""JSON schemas as clients write them: what an answer may be, letter by letter, without a model."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer
from llguidance._tokenizer import TokenizerWrapper

from deepseek.engine.grammar_trial import Bytes
from deepseek.engine.grammars import grammar_of, json_schema_of
from deepseek.engine.json_schemas import declares_no_properties, has_finite_value, moved, prepared
from deepseek.errors import GenerationError
from deepseek.sampling import StructuredOutput

TOKENIZER = LLTokenizer(TokenizerWrapper(Bytes()))
NAME = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
AGE = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


def takes(schema: Any, text: str) -> bool:
    """Whether this text is a whole answer under the schema."""
    matcher = LLMatcher(TOKENIZER, grammar_of(StructuredOutput(json_schema=schema)), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    data = text.encode()
    return matcher.try_consume_tokens(list(data)) == len(data) and bool(matcher.is_accepting())


BLANKS = {
    '{"name":"x"}': True,
    '{"name": "x"}': True,
    '{ "name" : "x" }': True,
    '{\n  "name": "x"\n}': True,
    '{\r\n\t"name": "x"\r\n}': True,
    '{"name":  "x"}': False,
    '{\n\n"name": "x"}': False,
    '{"name":\n' + " " * 33 + '"x"}': False,
    ' {"name": "x"}': False,
    '{"name": "x"} ': False,
    '{"name": "a  b"}': True,
    '{"name": "caf\\u00e9"}': True,
    '{"name": "\\ud83d\\ude00"}': True,
    '{"name": "\\ud83d"}': False,
}


@pytest.mark.parametrize("text", BLANKS)
def test_blanks_are_those_that_models_write_and_bounded(text: str) -> None:
    assert takes(NAME, text) == BLANKS[text]


@pytest.mark.parametrize("indent", [None, 1, 2, 4, "\t"])
def test_what_json_dumps_writes_is_possible(indent: Any) -> None:
    value = {"name": "x", "list": [1, [2, {"a": None}]], "empty": {}, "none": []}
    assert takes({"type": "object"}, json.dumps(value, indent=indent))


# schema, texts that it takes, texts that it does not
SCHEMAS: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "declared properties are all": (NAME, ['{"name": "a"}'], ['{"name": "a", "b": 1}', "{}"]),
    "no properties declared": ({"type": "object", "properties": {}}, ["{}"], ['{"a": 1}']),
    "any object": ({"type": "object"}, ["{}", '{"a": 1}'], ["1"]),
    "a map": ({"type": "object", "additionalProperties": {"type": "integer"}}, ['{"a": 1}'], ['{"a": "x"}']),
    "others allowed": ({**NAME, "additionalProperties": {}}, ['{"name": "a", "b": 1}'], []),
    "type left out": ({"properties": {"a": {"type": "integer"}}}, ['{"a": 1}', "{}"], ["1", '{"b": 1}']),
    "required and not declared": ({**NAME, "required": ["name", "b"]}, ['{"name": "a", "b": [1]}'], ['{"name": "a"}']),
    "optional of pydantic": (
        {"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "title": "A"}}},
        ["{}", '{"a": null}', '{"a": "x"}'], ['{"a": 1}'],
    ),
    "enumeration by reference": (
        {"properties": {"a": {"$ref": "#/$defs/E", "description": "d"}}, "required": ["a"],
         "$defs": {"E": {"enum": ["x", "y"], "type": "string", "title": "E"}}},
        ['{"a": "x"}'], ['{"a": "z"}'],
    ),
    "allOf of one": (
        {"properties": {"a": {"allOf": [{"$ref": "#/definitions/N"}], "default": {}}}, "definitions": {"N": NAME}},
        ['{"a": {"name": "b"}}'], ['{"a": {"name": "b", "c": 1}}', '{"a": 1}'],
    ),
    "allOf of two": ({"allOf": [NAME, AGE]}, ['{"name":"a","age":1}'], ['{"name":"a"}', '{"name":"a","age":1,"b":2}']),
    "allOf beside properties": (
        {"allOf": [{"$ref": "#/$defs/N"}], **AGE, "$defs": {"N": NAME}}, ['{"age": 1, "name": "a"}'], ['{"age": 1}'],
    ),
    "anyOf beside properties": (
        {**NAME, "anyOf": [AGE, {"properties": {"born": {"type": "integer"}}, "required": ["born"]}]},
        ['{"name": "a", "age": 1}', '{"name": "a", "born": 1}'], ['{"name": "a"}', '{"name":"a","age":1,"born":1}'],
    ),
    "discriminated by an optional property": (
        {"oneOf": [{"$ref": "#/$defs/C"}, {"$ref": "#/$defs/D"}], "discriminator": {"propertyName": "kind"}, "$defs": {
            "C": {"type": "object", "properties": {"kind": {"const": "c", "default": "c"}}},
            "D": {"type": "object", "properties": {"kind": {"const": "d"}, "n": {"type": "integer"}}}}},
        ['{"kind": "c"}', '{"kind": "d", "n": 1}'], ['{"kind": "c", "n": 1}', "{}"],
    ),
    "recursive": (
        {"$ref": "#/$defs/N", "$defs": {"N": {"type": "object", "required": ["v"], "properties": {
            "v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/N"}, {"type": "null"}]}}}}},
        ['{"v": 1, "next": {"v": 2, "next": null}}'], ['{"v": 1, "next": {"w": 2}}'],
    ),
    "recursive at the root": (
        {"type": "object", "properties": {"c": {"type": "array", "items": {"$ref": "#"}}}},
        ['{"c": [{"c": []}, {}]}'], ['{"c": [1]}'],
    ),
    "names of an enumeration": (
        {"type": "object", "propertyNames": {"$ref": "#/$defs/K"}, "additionalProperties": {"type": "integer"},
         "$defs": {"K": {"enum": ["a", "b"], "type": "string"}}},
        ["{}", '{"b": 1}'], ['{"c": 1}', '{"a": "x"}'],
    ),
    "names with a pattern": (
        {"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}, "additionalProperties": {"type": "integer"}},
        ['{"ab": 1}'], ['{"A": 1}'],
    ),
    "names with a length": ({"type": "object", "propertyNames": {"maxLength": 2}}, ['{"ab": 1}'], ['{"abc": 1}']),
    "names are strings": ({"type": "object", "propertyNames": {"type": "string"}}, ['{"a": 1}'], []),
    "nullable of OpenAPI": ({"type": "string", "nullable": True}, ["null", '"a"'], ["1"]),
    "nullable enumeration": ({"enum": ["a"], "nullable": True}, ["null", '"a"'], ['"b"']),
    "exclusive bound of draft 4": ({"type": "integer", "minimum": 5, "exclusiveMinimum": True}, ["6"], ["5"]),
    "types in capitals": ({"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}, ['{"a": "x"}'], ['{"a": 1}']),
    "format that says nothing": ({"type": "string", "format": "password"}, ['"x"'], ["1"]),
    "date": ({"type": "string", "format": "date"}, ['"2024-02-29"'], ['"x"']),
    "Decimal of pydantic": (
        {"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$"}]},
        ["1.5"], ['"1.5"'],
    ),
    "neutral keywords": (
        {"type": "array", "items": {"type": "integer"}, "uniqueItems": False, "minItems": 0, "description": None},
        ["[1, 1]", "[]"], ['["a"]'],
    ),
    "unevaluatedProperties": ({**NAME, "unevaluatedProperties": False}, ['{"name": "a"}'], ['{"name": "a", "b": 1}']),
    "draft of Zod": (
        {"$schema": "http://json-schema.org/draft-07/schema#", **NAME, "additionalProperties": False},
        ['{"name": "a"}'], ["{}"],
    ),
    "draft that nobody knows": ({"$schema": "https://example.com/mine", **NAME}, ['{"name": "a"}'], ["{}"]),
    "draft by https": ({"$schema": "https://json-schema.org/draft-07/schema", **NAME}, ['{"name": "a"}'], ["{}"]),
    "a property called as a keyword": (
        {"type": "object", "properties": {"properties": {"type": "integer"}, "type": {"const": "x"}}},
        ['{"properties": 1, "type": "x"}'], ['{"a": 1}'],
    ),
    "constants stay as they are": ({"const": {"properties": None}}, ['{"properties": null}'], ["{}"]),
    "settings of the grammar library": (
        {**NAME, "x-guidance": {"whitespace_flexible": True}}, ['{"name": "a"}'], ['{   "name": "a"}'],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_a_schema_allows(name: str) -> None:
    schema, taken, refused = SCHEMAS[name]
    assert [text for text in taken if not takes(schema, text)] == []
    assert [text for text in refused if takes(schema, text)] == []


def test_a_schema_is_not_changed_and_preparing_it_again_changes_nothing() -> None:
    for schema, _, _ in SCHEMAS.values():
        before = json.dumps(schema)
        once = prepared(schema)
        assert json.dumps(schema) == before
        assert prepared(once) == once


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"$defs": {"A": {"allOf": [{"$ref": "#/$defs/A"}] * 3}}, "allOf": [{"$ref": "#/$defs/A"}] * 9},
        {"properties": {"a": {}}, "$ref": "#"},
        {"propertyNames": [], "oneOf": [1, {}], "type": 5, "items": 3, "additionalProperties": "x"},
        {"properties": {str(n): {} for n in range(200)}, "anyOf": [{"properties": {"a": {}}}] * 2000},
    ],
)
def test_preparing_ends_on_any_schema(schema: dict[str, Any]) -> None:
    assert len(json.dumps(prepared(schema))) < 1_000_000


@pytest.mark.parametrize("schema", [None, {}, {"type": "object"}, {"type": "object", "properties": {}, "required": []},
                                    {"type": "object", "properties": None, "description": "x"}])  # fmt: skip
def test_tools_without_parameters(schema: Any) -> None:
    assert declares_no_properties(schema)


@pytest.mark.parametrize("schema", [NAME, {"type": "object", "additionalProperties": True}, {"$ref": "#/$defs/A"},
                                    {"additionalProperties": {"type": "integer"}}, {"anyOf": [NAME]}])  # fmt: skip
def test_tools_with_parameters(schema: Any) -> None:
    assert not declares_no_properties(schema)


def test_references_follow_a_schema_that_is_moved() -> None:
    whole = {"type": "object", "properties": {"c": {"$ref": "#"}, "n": {"$ref": "#/$defs/N"}}, "$defs": {"N": NAME}}
    schema = {"type": "array", "items": {"$ref": "#/$defs/0"}, "$defs": {"0": moved(whole, "/$defs/0")}}
    assert takes(schema, '[{"c": {"n": {"name": "a"}}}]')
    assert not takes(schema, '[{"c": []}]')


ITSELF = {"$ref": "#"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": ITSELF, "minItems": 1},
        {"type": "object", "properties": {"a": ITSELF}, "required": ["a"]},
        {"anyOf": [{"type": "array", "items": ITSELF, "minItems": 2}, {"allOf": [ITSELF]}]},
        {"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/B"}]}, "B": {"$ref": "#/$defs/A"}}},
    ],
)
def test_a_schema_without_a_finite_value_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(GenerationError, match=r"^structured\.json_schema .* without end"):
        grammar_of(StructuredOutput(json_schema=schema))


def test_long_chains_of_references_end() -> None:
    chain = {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(3000)}
    assert has_finite_value({"$ref": "#/$defs/0", "$defs": {**chain, "3000": {"type": "null"}}})


KEYWORDS = [
    "type", "properties", "required", "additionalProperties", "allOf", "anyOf", "oneOf", "$ref", "$defs", "items",
    "enum", "const", "propertyNames", "patternProperties", "minItems", "prefixItems", "format", "pattern", "nullable",
    "exclusiveMinimum", "minimum", "unevaluatedProperties", "minLength", "a",
]  # fmt: skip
SCALARS = st.sampled_from(
    ["object", "array", "string", "#", "#/$defs/a", "a", True, False, None, 0, 1, -1, 1.5, "^(?=a)"]
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=5)),
    max_leaves=25,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYWORDS), ANYTHING, max_size=6))
def test_whatever_is_no_schema_is_refused_in_words_if_at_all(schema: dict[str, Any]) -> None:
    moved(schema, "/$defs/0")
    declares_no_properties(schema)
    with suppress(GenerationError):
        assert isinstance(json_schema_of(StructuredOutput(json_schema=schema)), dict)
