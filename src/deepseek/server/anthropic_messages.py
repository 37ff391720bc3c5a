"""Anthropic's messages as the chat messages that templates are given: `deepseek.server.chat_messages` reads them."""

import json
import re
from collections.abc import Sequence
from typing import Any

from deepseek.errors import GenerationError
from deepseek.server.protocol.ignored_fields import ignore
from deepseek.server.protocol.messages import Block, CountTokensRequest, Message, TextBlock, Tool

_BILLING_LINE = re.compile(r"x-anthropic-billing-header:(?:[ \t]*[\w-]+=[\w.-]*;)*[ \t]*\n?")


def chat_messages(body: CountTokensRequest) -> list[dict[str, Any]]:
    """The system prompt first. Turns of the same role in a row become one; what tools said, messages of their own."""
    told: list[dict[str, Any]] = []
    if body.system and (system := _without_billing_line(_text(body.system))):
        told.append({"role": "system", "content": system})
    for message in body.messages:
        for each in _read(message):
            if each["role"] == "system" and not each["content"]:
                continue
            if told and _joins(told[-1], each):
                told[-1]["content"] = "\n\n".join(filter(None, (told[-1]["content"], each["content"])))
                told[-1] |= {key: each[key] for key in ("tool_calls", "reasoning_content") if key in each}
            else:
                told.append(each)
    return told


def is_continued(body: CountTokensRequest) -> bool:
    """Whether the answer goes on with the last message. Raises GenerationError where that cannot be."""
    last = body.messages[-1]
    if last.role != "assistant":
        return False
    if not isinstance(last.content, str) and any(block.type == "tool_use" for block in last.content):
        raise GenerationError("messages must not end with a tool_use block: add its tool_result")
    return True


def function_tools(tools: Sequence[Tool] | None) -> list[dict[str, Any]]:
    """As `ChatTask.tools`."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                **({} if tool.description is None else {"description": tool.description}),
                "parameters": tool.input_schema,
            },
        }
        for tool in tools or ()
    ]


def _joins(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether two messages are one turn. A call ends the turn that it is in."""
    return before["role"] == after["role"] != "tool" and not before.keys() & {"tool_calls"}


def _read(message: Message) -> list[dict[str, Any]]:
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    if message.role == "assistant":
        return [_assistant(message.content)]
    told: list[dict[str, Any]] = []
    for block in message.content:
        if block.type == "tool_result":
            told.append(_tool_result(block))
        elif told and told[-1]["role"] == message.role:
            told[-1]["content"] += block.text or ""
        else:
            told.append({"role": message.role, "content": block.text or ""})
    return told


def _assistant(blocks: Sequence[Block]) -> dict[str, Any]:
    told: dict[str, Any] = {"role": "assistant", "content": "".join(block.text or "" for block in blocks)}
    reasoning = "".join(block.thinking or "" for block in blocks)
    if reasoning:
        told["reasoning_content"] = reasoning
    calls = [
        {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": json.dumps(block.input)}}
        for block in blocks
        if block.type == "tool_use"
    ]
    if calls:
        told["tool_calls"] = calls
    return told


def _tool_result(block: Block) -> dict[str, Any]:
    """A failure is told as one, for templates have no place for it."""
    text = _text(block.content or "")
    return {
        "role": "tool",
        "tool_call_id": block.tool_use_id,
        "content": f"Error: {text}" if block.is_error else text,
    }


def _without_billing_line(system: str) -> str:
    """Claude Code's system prompt begins with a line for Anthropic's billing, which says nothing to a model.

    It names a hash of the session: with it no session would find the prefix of another in the cache.
    """
    line = _BILLING_LINE.match(system)
    if line is None:
        return system
    ignore("system.x-anthropic-billing-header")
    return system[line.end() :]


def _text(content: str | Sequence[TextBlock]) -> str:
    return content if isinstance(content, str) else "".join(block.text for block in content)
