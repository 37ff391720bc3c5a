"""Answers of `/v1/responses`, as msgspec structures: the response, its items and the events of its stream."""

from typing import Any

import msgspec

from deepseek.server.protocol.answers import TokenLogprob


class OutputText(msgspec.Struct, tag="output_text"):
    text: str = ""
    annotations: list[Any] = msgspec.field(default_factory=list)
    logprobs: list[TokenLogprob] = msgspec.field(default_factory=list)


class ReasoningText(msgspec.Struct, tag="reasoning_text"):
    text: str = ""


class OutputMessage(msgspec.Struct, tag="message"):
    id: str
    content: list[OutputText]
    status: str = "in_progress"
    role: str = "assistant"


class ReasoningItem(msgspec.Struct, tag="reasoning"):
    """summary: stays empty; content: the reasoning in full."""

    id: str
    content: list[ReasoningText]
    status: str = "in_progress"
    summary: list[Any] = msgspec.field(default_factory=list)


class FunctionCallItem(msgspec.Struct, tag="function_call"):
    id: str
    call_id: str
    name: str
    arguments: str = ""
    status: str = "in_progress"
    namespace: str | msgspec.UnsetType = msgspec.UNSET


class CustomCallItem(msgspec.Struct, tag="custom_tool_call"):
    """input: the text that the tool is given."""

    id: str
    call_id: str
    name: str
    input: str = ""
    status: str = "in_progress"
    namespace: str | msgspec.UnsetType = msgspec.UNSET


OutputItem = OutputMessage | ReasoningItem | FunctionCallItem | CustomCallItem


class InputDetails(msgspec.Struct):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct):
    reasoning_tokens: int


class ResponseUsage(msgspec.Struct):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputDetails
    output_tokens_details: OutputDetails


class IncompleteDetails(msgspec.Struct):
    reason: str


class ResponseFailure(msgspec.Struct):
    code: str
    message: str


class ResponseAnswer(msgspec.Struct):
    """What was asked for, as far as OpenAI repeats it, and what came of it."""

    id: str
    created_at: int
    model: str
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: dict[str, Any]
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    user: str | None
    output: list[OutputItem] = msgspec.field(default_factory=list)
    status: str = "in_progress"
    usage: ResponseUsage | None = None
    incomplete_details: IncompleteDetails | None = None
    error: ResponseFailure | None = None
    completed_at: int | None = None
    object: str = "response"
    background: bool = False
    truncation: str = "disabled"
    service_tier: str = "default"


class Event(msgspec.Struct, kw_only=True):
    """sequence_number: from 0, in order."""

    type: str
    sequence_number: int


class ResponseEvent(Event, kw_only=True):
    response: ResponseAnswer


class ItemEvent(Event, kw_only=True):
    output_index: int
    item: OutputItem


class PartEvent(Event, kw_only=True):
    item_id: str
    output_index: int
    part: OutputText | ReasoningText
    content_index: int = 0


class TextDelta(Event, kw_only=True):
    item_id: str
    output_index: int
    delta: str
    logprobs: list[TokenLogprob]
    content_index: int = 0


class TextDone(Event, kw_only=True):
    item_id: str
    output_index: int
    text: str
    logprobs: list[TokenLogprob]
    content_index: int = 0


class ReasoningDelta(Event, kw_only=True):
    item_id: str
    output_index: int
    delta: str
    content_index: int = 0


class ReasoningDone(Event, kw_only=True):
    item_id: str
    output_index: int
    text: str
    content_index: int = 0


class ArgumentsDelta(Event, kw_only=True):
    item_id: str
    output_index: int
    delta: str


class ArgumentsDone(Event, kw_only=True):
    item_id: str
    output_index: int
    arguments: str


class InputDone(Event, kw_only=True):
    item_id: str
    output_index: int
    input: str
