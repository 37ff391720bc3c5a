"""Turns in the form of `/v1/chat/completions`, in histories that are sent to the other APIs.

Agents that change the API keep their history: without its calls and their results the prompt would be another one.
"""

from collections.abc import Mapping
from typing import Any


def as_items(message: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """As items of `/v1/responses`: calls, or the result of one. None: it has neither."""
    if message.get("role") == "tool":
        return [{"type": "function_call_output", "call_id": _call_id(message), "output": message.get("content")}]
    calls = _calls(message)
    if not calls:
        return None
    rest = {name: value for name, value in message.items() if name != "tool_calls"}
    items = [{"type": "function_call", "call_id": one[0], "name": one[1], "arguments": one[2]} for one in calls]
    return [rest, *items] if message.get("content") else items


def as_blocks(values: dict[str, Any]) -> None:
    """As a message of `/v1/messages`; in place."""
    if values.get("role") == "developer":
        values["role"] = "system"
    if values.get("role") == "tool":
        result = {"type": "tool_result", "tool_use_id": _call_id(values), "content": values.get("content")}
        values.pop("tool_call_id", None)
        values |= {"role": "user", "content": [result]}
    calls = _calls(values)
    if calls:
        content = values.get("content") or []
        said = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        used = [{"type": "tool_use", "id": one[0], "name": one[1], "input": one[2]} for one in calls]
        values["content"] = [*said, *used]
        del values["tool_calls"]


def _call_id(message: Mapping[str, Any]) -> Any:
    return message.get("tool_call_id") or "call"


def _calls(message: Mapping[str, Any]) -> list[tuple[Any, Any, Any]]:
    """id, name and arguments of each; none where one is not a call of a function."""
    calls = message.get("tool_calls")
    if message.get("role") != "assistant" or not isinstance(calls, list):
        return []
    found = []
    for one in calls:
        function = one.get("function") if isinstance(one, dict) else None
        if not isinstance(function, dict):
            return []
        found.append((one.get("id") or "call", function.get("name"), function.get("arguments") or "{}"))
    return found
