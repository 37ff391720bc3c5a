"""Items of `/v1/responses` as the chat messages that templates are given: `deepseek.server.chat_messages` reads them.

Reasoning, what was said and calls that follow each other are one message of the assistant.
"""

from collections.abc import Sequence
from typing import Any

from deepseek.server.protocol.responses import FunctionTool, InputItem, TextPart


def chat_messages(instructions: str | None, items: Sequence[InputItem]) -> list[dict[str, Any]]:
    """The instructions first, as a system message."""
    told: list[dict[str, Any]] = []
    if instructions:
        told.append({"role": "system", "content": instructions})
    for item in items:
        if item.type == "function_call_output":
            told.append({"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)})
        elif item.type == "message" and item.role != "assistant":
            told.append({"role": item.role, "content": _text(item.content)})
        else:
            _add_to_turn(_open_turn(told, item), item)
    return told


def function_tools(tools: Sequence[FunctionTool] | None) -> list[dict[str, Any]]:
    """As `ChatTask.tools`."""
    return [
        {"type": "function", "function": tool.model_dump(exclude={"type", "strict"}, exclude_none=True)}
        for tool in tools or ()
    ]


def _open_turn(told: list[dict[str, Any]], item: InputItem) -> dict[str, Any]:
    """The assistant's message that this item belongs to: the last one, unless it is past what the item is."""
    last = told[-1] if told else {"role": ""}
    ended = {"message": {"tool_calls", "content"}, "reasoning": {"tool_calls", "content"}, "function_call": set[str]()}
    if last["role"] != "assistant" or last.keys() & ended[item.type]:
        told.append({"role": "assistant"})
    return told[-1]


def _add_to_turn(turn: dict[str, Any], item: InputItem) -> None:
    if item.type == "function_call":
        function = {"name": item.name, "arguments": item.arguments}
        turn.setdefault("tool_calls", []).append({"id": item.call_id, "type": "function", "function": function})
    elif item.type == "reasoning":
        turn["reasoning_content"] = turn.get("reasoning_content", "") + _text(item.content or item.summary)
    else:
        turn["content"] = _text(item.content)


def _text(content: str | Sequence[TextPart] | None) -> str:
    return content if isinstance(content, str) else "".join(part.said for part in content or ())
