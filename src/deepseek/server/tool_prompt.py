"""Tools for models whose chat template knows none: described in the system message, as Hermes models are told."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

PARSER = "hermes"
"""The parser for what such a model answers."""

_TEXT = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def knows_tools(template: str) -> bool:
    """Whether a chat template prints tools."""
    return "tools" in template


def with_tools(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages with the tools described, and calls and their results as text."""
    described = _TEXT.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
    told = without_calls(messages)
    if told[0]["role"] == "system":
        told[0]["content"] = f"{told[0]['content']}\n\n{described}"
        return told
    return [{"role": "system", "content": described}, *told]


def without_calls(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages of the roles system, user and assistant alone."""
    return [_as_text(message) for message in messages]


def _as_text(message: Mapping[str, Any]) -> dict[str, Any]:
    told = dict(message)
    if told["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{told['content']}\n</tool_response>"}
    calls = told.pop("tool_calls", None)
    if calls:
        lines = [
            f'<tool_call>\n{{"name": {json.dumps(call["function"]["name"])}, '
            f'"arguments": {_arguments_text(call["function"]["arguments"])}}}\n</tool_call>'
            for call in calls
        ]
        told["content"] = "\n".join([*([told["content"]] if told.get("content") else []), *lines])
    return told


def _arguments_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
