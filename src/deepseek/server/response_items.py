"""Items of `/v1/responses` as the chat messages that templates are given: `deepseek.server.chat_messages` reads them.

Reasoning, what was said and calls that follow each other are one message of the assistant. The model knows a tool of a
namespace as `namespace__tool`, and a custom tool as a function with the argument `input`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepseek.server.protocol.response_input import InputItem, TextPart
from deepseek.server.protocol.responses import FunctionTool, NamespaceMember
from deepseek.server.protocol.tools import CUSTOM_PARAMETERS, FunctionName

_CALLS = ("function_call", "custom_tool_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")


@dataclass(frozen=True, slots=True)
class CalledTool:
    """What a call names, for the client. custom: its input is one text."""

    name: str
    namespace: str | None = None
    custom: bool = False


def chat_messages(instructions: str | None, items: Sequence[InputItem]) -> list[dict[str, Any]]:
    """The instructions first, as a system message."""
    told: list[dict[str, Any]] = []
    if instructions:
        told.append({"role": "system", "content": instructions})
    for item in items:
        if item.type in _OUTPUTS:
            told.append({"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)})
        elif item.type == "message" and item.role != "assistant":
            told.append({"role": item.role, "content": _text(item.content)})
        else:
            _add_to_turn(_open_turn(told, item), item)
    return told or [{"role": "user", "content": ""}]


def function_tools(tools: Sequence[FunctionTool] | None) -> tuple[list[dict[str, Any]], dict[str, CalledTool]]:
    """As `ChatTask.tools`, and what each of their names stands for."""
    offered: list[dict[str, Any]] = []
    called: dict[str, CalledTool] = {}
    for tool in tools or ():
        namespace = tool.name if tool.type == "namespace" else None
        members: Sequence[NamespaceMember] = [tool] if namespace is None else tool.tools or ()
        for one in members:
            name = _model_name(one.name, namespace)
            called[name] = CalledTool(one.name, namespace, one.type == "custom")
            offered.append({"type": "function", "function": _described(one, name)})
    return offered, called


def chosen_function(name: str, called: Mapping[str, CalledTool]) -> FunctionName:
    """The tool that a request's tool_choice names, by the model's name of it."""
    return FunctionName(name=next((own for own, tool in called.items() if name in (own, tool.name)), name))


def _described(tool: NamespaceMember, name: str) -> dict[str, Any]:
    described: dict[str, Any] = {"name": name}
    if tool.description is not None:
        described["description"] = tool.description
    parameters = CUSTOM_PARAMETERS if tool.type == "custom" else tool.parameters
    return described if parameters is None else {**described, "parameters": parameters}


def _model_name(name: str, namespace: str | None) -> str:
    return name if namespace is None else f"{namespace.rstrip('_')}__{name}"


def _open_turn(told: list[dict[str, Any]], item: InputItem) -> dict[str, Any]:
    """The assistant's message that this item belongs to: the last one, unless it is past what the item is."""
    last = told[-1] if told else {"role": ""}
    ended = set[str]() if item.type in _CALLS else {"tool_calls", "content"}
    if last["role"] != "assistant" or last.keys() & ended:
        told.append({"role": "assistant"})
    return told[-1]


def _add_to_turn(turn: dict[str, Any], item: InputItem) -> None:
    if item.type in _CALLS:
        arguments = json.dumps({"input": item.input or ""}) if item.type == "custom_tool_call" else item.arguments
        function = {"name": _model_name(item.name or "", item.namespace), "arguments": arguments}
        turn.setdefault("tool_calls", []).append({"id": item.call_id, "type": "function", "function": function})
    elif item.type == "reasoning":
        turn["reasoning_content"] = turn.get("reasoning_content", "") + _text(item.content or item.summary)
    else:
        turn["content"] = _text(item.content)


def _text(content: str | Sequence[TextPart] | None) -> str:
    return content if isinstance(content, str) else "".join(part.said for part in content or ())
