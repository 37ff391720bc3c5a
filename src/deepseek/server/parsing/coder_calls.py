"""Tool calls of Qwen3-Coder and later Qwen models, in tags rather than JSON.

    <tool_call>
    <function=NAME>
    <parameter=KEY>
    VALUE
    </parameter>
    </function>
    </tool_call>

A value is a text between two line breaks that are not part of it, so its type must come from the tool's schema.
Recorded outputs: vllm-project/vllm tests/tool_parsers/test_qwen3coder_tool_parser.py; from there also: `<tool_call>`
may be missing. A value in which a line begins with `<parameter=` lacks its end; rather than guess, that is no call.
"""

from collections.abc import Mapping
from typing import Any

from deepseek.server.parsing.call_format import LONGEST_NAME, NAME
from deepseek.server.parsing.json_text import is_json, quoted, strict
from deepseek.server.parsing.pieces import Malformed
from deepseek.server.parsing.source import Reading, Source

_FUNCTION = "<function="
_PARAMETER = "<parameter="


class CoderCalls:
    """schemas: a tool's name to the JSON schema of its parameters."""

    opens = frozenset(("\n<tool_call>", "<tool_call>", _FUNCTION))
    closes = frozenset(("</tool_call>",))

    def __init__(self, schemas: Mapping[str, Mapping[str, Any]]) -> None:
        self._schemas = schemas

    def read(self, source: Source, opened: str) -> Reading[tuple[str, str]]:
        if opened != _FUNCTION:
            yield from source.blank()
            yield from source.expect(_FUNCTION)
        name = yield from source.word(NAME, LONGEST_NAME)
        yield from source.expect(">")
        arguments: dict[str, str] = {}
        while True:
            yield from source.blank()
            if (yield from source.expect(_PARAMETER, "</function>")) != _PARAMETER:
                return name, "{" + ", ".join(f"{quoted(key)}: {value}" for key, value in arguments.items()) + "}"
            key = yield from source.word(NAME, LONGEST_NAME)
            yield from source.expect(">")
            value = yield from source.text_before("</parameter>")
            if key in arguments or f"\n{_PARAMETER}" in value:
                raise Malformed
            value = value.removeprefix("\n").removesuffix("\n")
            arguments[key] = typed(value, self._types(name, key))

    def _types(self, name: str, key: str) -> frozenset[str]:
        schema = self._schemas.get(name)
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        declared = properties.get(key) if isinstance(properties, Mapping) else None
        return types_of(declared) if isinstance(declared, Mapping) else frozenset()


def types_of(schema: Mapping[str, Any]) -> frozenset[str]:
    """The JSON types that a schema names, itself or in its alternatives (one level of them)."""
    schemas = [schema]
    for alternatives in (schema.get("anyOf"), schema.get("oneOf")):
        if isinstance(alternatives, list):
            schemas += [item for item in alternatives if isinstance(item, Mapping)]
    named: set[str] = set()
    for item in schemas:
        types = item.get("type")
        named.update(kind for kind in (types if isinstance(types, list) else [types]) if isinstance(kind, str))
    return frozenset(named)


def typed(value: str, types: frozenset[str]) -> str:
    """The JSON for a value written without quotes. Without types: JSON if it is some, else a text."""
    bare = value.strip()
    if "string" in types and not (bare == "null" and "null" in types):
        return quoted(value)
    if bare in ("True", "False") and "boolean" in types:
        return bare.lower()
    return strict(bare) if is_json(bare) else quoted(value)
