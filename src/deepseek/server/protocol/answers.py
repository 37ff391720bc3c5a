"""Answers of the generating routes, as structures that msgspec encodes without looking twice."""

from typing import Any

import msgspec


class _Answer(msgspec.Struct, omit_defaults=False):
    """Every field is written."""


class TokenDetails(msgspec.Struct, omit_defaults=True):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    accepted_prediction_tokens: int | None = None


class Usage(_Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: TokenDetails
    completion_tokens_details: TokenDetails


class TopLogprob(_Answer):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(_Answer):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(_Answer):
    """reasoning_content: of the tokens before the content, with the marks around them."""

    content: list[TokenLogprob]
    refusal: None = None
    reasoning_content: list[TokenLogprob] | msgspec.UnsetType = msgspec.UNSET

    def add(self, more: "ChatLogprobs") -> None:
        self.content += more.content
        if isinstance(more.reasoning_content, list):
            known = self.reasoning_content if isinstance(self.reasoning_content, list) else []
            self.reasoning_content = known + more.reasoning_content


TokenExperts = list[list[Any]]
"""Of the computation that chose one token: for each layer with experts, [[expert ids, best first], [weights]]."""


class CalledFunction(msgspec.Struct, omit_defaults=True):
    arguments: str
    name: str | None = None


class CalledCustom(msgspec.Struct, omit_defaults=True):
    """Of a custom tool. input: the text that it is given; it comes whole."""

    input: str
    name: str | None = None


class ToolCallDelta(msgspec.Struct, omit_defaults=True):
    index: int
    function: CalledFunction | None = None
    id: str | None = None
    type: str | None = None
    custom: CalledCustom | None = None


class ChatDelta(msgspec.Struct, omit_defaults=True):
    """function_call: for requests with the older functions, instead of tool_calls."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    function_call: CalledFunction | None = None


class ChatChunkChoice(msgspec.Struct):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    routed_experts: list[TokenExperts] | msgspec.UnsetType = msgspec.UNSET
    prompt_routed_experts: list[TokenExperts] | msgspec.UnsetType = msgspec.UNSET
    token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class ChatChunk(msgspec.Struct):
    id: str
    created: int
    model: str
    choices: list[ChatChunkChoice]
    object: str = "chat.completion.chunk"
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    prompt_token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class FunctionCall(_Answer):
    name: str
    arguments: str


class CustomCall(_Answer):
    name: str
    input: str


class ToolCall(msgspec.Struct):
    """A call of a function, or of a custom tool."""

    id: str
    function: FunctionCall | msgspec.UnsetType = msgspec.UNSET
    type: str = "function"
    custom: CustomCall | msgspec.UnsetType = msgspec.UNSET


class AnswerMessage(msgspec.Struct):
    content: str | None
    role: str = "assistant"
    refusal: None = None
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[ToolCall] | msgspec.UnsetType = msgspec.UNSET
    function_call: FunctionCall | msgspec.UnsetType = msgspec.UNSET


class ChatChoice(msgspec.Struct):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: str
    routed_experts: list[TokenExperts] | msgspec.UnsetType = msgspec.UNSET
    prompt_routed_experts: list[TokenExperts] | msgspec.UnsetType = msgspec.UNSET
    token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class ChatCompletion(_Answer):
    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    object: str = "chat.completion"
    prompt_token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class CompletionLogprobs(_Answer):
    """One entry a token; the first token of an echoed prompt has none."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]

    def extend(self, more: "CompletionLogprobs") -> None:
        self.tokens += more.tokens
        self.token_logprobs += more.token_logprobs
        self.top_logprobs += more.top_logprobs
        self.text_offset += more.text_offset


class CompletionChoice(msgspec.Struct):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None
    routed_experts: list[TokenExperts] | msgspec.UnsetType = msgspec.UNSET
    prompt_routed_experts: list[TokenExperts] | msgspec.UnsetType = msgspec.UNSET
    token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET
    prompt_token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class Completion(msgspec.Struct):
    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    object: str = "text_completion"
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET


encode: Any = msgspec.json.Encoder().encode
