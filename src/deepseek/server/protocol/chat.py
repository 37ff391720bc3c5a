"""`/v1/chat/completions`: what may be asked."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from deepseek.server.protocol.fields import SamplingFields, Strict


class ContentPart(Strict):
    """Text only: other kinds are refused by name."""

    type: Literal["text", "refusal"]
    text: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _has_its_field(self) -> Self:
        if getattr(self, self.type) is None:
            raise ValueError(f"a part of type {self.type} must have the field {self.type}")
        return self


class CalledFunction(Strict):
    name: str
    arguments: str


class ToolCall(Strict):
    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise ValueError("content must be a text or a list of parts")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("tool_calls must be of a message with role assistant")
        return self


class Function(Strict):
    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict):
    type: Literal["function"]
    function: Function


class FunctionName(Strict):
    name: str


class NamedToolChoice(Strict):
    type: Literal["function"]
    function: FunctionName


class ChatCompletionRequest(SamplingFields):
    """OpenAI's fields, with vLLM's extensions. What is not listed here is refused by name."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: int | None = None
    max_tokens: int | None = Field(default=None, description="The older name of max_completion_tokens.")
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[Tool] | None = Field(default=None, max_length=256)
    tool_choice: Literal["auto", "none", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = Field(
        default=None, description="For templates that read it; none: no reasoning, where the template can."
    )
    thinking_budget: int | None = Field(default=None, ge=0, description="Tokens of reasoning at most.")
    include_reasoning: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    metadata: dict[str, str] | None = Field(default=None, description="Labels; change nothing.")
    safety_identifier: str | None = Field(default=None, description="A label; changes nothing.")
    prompt_cache_key: str | None = Field(default=None, description="A label; the cache needs none.")
    service_tier: Literal["auto", "default"] | None = None
    store: Literal[False] | None = None

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens not in (None, self.max_tokens):
            raise ValueError("max_tokens and max_completion_tokens mean the same: give one")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs must be given with logprobs: true")
        if self.tool_choice not in (None, "none") and not self.tools:
            raise ValueError("tool_choice must be given with tools")
        if self.continue_final_message and "add_generation_prompt" not in self.model_fields_set:
            self.add_generation_prompt = False
        return self
