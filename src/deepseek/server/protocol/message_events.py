"""Answers of `/v1/messages`, as msgspec structures: the message and the events of its stream."""

from typing import Any

import msgspec


class MessageUsage(msgspec.Struct):
    """input_tokens: without those that were read from the cache."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0


class TextContent(msgspec.Struct, tag="text"):
    text: str = ""


class ThinkingContent(msgspec.Struct, tag="thinking"):
    thinking: str = ""
    signature: str = ""


class ToolUseContent(msgspec.Struct, tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


Block = TextContent | ThinkingContent | ToolUseContent


class MessageAnswer(msgspec.Struct, tag="message"):
    id: str
    model: str
    usage: MessageUsage
    content: list[Block]
    role: str = "assistant"
    stop_reason: str | None = None
    stop_sequence: str | None = None


class TextDelta(msgspec.Struct, tag="text_delta"):
    text: str


class ThinkingDelta(msgspec.Struct, tag="thinking_delta"):
    thinking: str


class SignatureDelta(msgspec.Struct, tag="signature_delta"):
    signature: str


class InputJsonDelta(msgspec.Struct, tag="input_json_delta"):
    partial_json: str


class MessageStart(msgspec.Struct, tag="message_start"):
    message: MessageAnswer


class BlockStart(msgspec.Struct, tag="content_block_start"):
    index: int
    content_block: Block


class BlockDelta(msgspec.Struct, tag="content_block_delta"):
    index: int
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta


class BlockStop(msgspec.Struct, tag="content_block_stop"):
    index: int


class Stopped(msgspec.Struct):
    stop_reason: str
    stop_sequence: str | None


class MessageDelta(msgspec.Struct, tag="message_delta"):
    """usage: of the whole answer."""

    delta: Stopped
    usage: MessageUsage


class MessageStop(msgspec.Struct, tag="message_stop"):
    pass


class Ping(msgspec.Struct, tag="ping"):
    pass


Event = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | Ping
