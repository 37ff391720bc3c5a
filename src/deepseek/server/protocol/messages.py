"""`/v1/messages`: what may be asked. Anthropic's fields, with a few extensions."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from deepseek.server.protocol.fields import Strict

MOST_MESSAGES = 10_000


class CacheControl(Strict):
    """Changes nothing: prompts are cached without being told."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Caller(Strict):
    type: Literal["direct"]


class TextBlock(Strict):
    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None
    citations: Annotated[list[Any], Field(max_length=0)] | None = None


_BLOCK_FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "text": ({"text"}, {"citations"}),
    "thinking": ({"thinking"}, {"signature"}),
    "tool_use": ({"id", "name", "input"}, {"caller"}),
    "tool_result": ({"tool_use_id"}, {"content", "is_error"}),
}
"""For each type of block the fields that it must and may have beside type and cache_control."""


class Block(Strict):
    """A part of a message. Other types, such as image and document, are refused: the models read text."""

    type: Literal["text", "thinking", "tool_use", "tool_result"]
    text: str | None = None
    citations: Annotated[list[Any], Field(max_length=0)] | None = None
    thinking: str | None = None
    signature: str | None = Field(default=None, description="Is not looked at.")
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    caller: Caller | None = None
    tool_use_id: str | None = None
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None

    @model_validator(mode="after")
    def _has_its_fields(self) -> Self:
        must, may = _BLOCK_FIELDS[self.type]
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        if missing := sorted(must - given):
            raise ValueError(f"a block of type {self.type} must have the field {missing[0]}")
        if others := sorted(given - must - may - {"type", "cache_control"}):
            raise ValueError(f"a block of type {self.type} cannot have the field {others[0]}")
        return self


_ROLE_BLOCKS = {
    "user": {"text", "tool_result"},
    "assistant": {"text", "thinking", "tool_use"},
    "system": {"text"},
}


class Message(Strict):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        blocks = [] if isinstance(self.content, str) else self.content
        if self.role != "assistant" and not self.content:
            raise ValueError(f"a message with role {self.role} must have content")
        for block in blocks:
            if block.type not in _ROLE_BLOCKS[self.role]:
                raise ValueError(f"a message with role {self.role} cannot have a block of type {block.type}")
        return self


class Tool(Strict):
    """One that the client carries out. Tools that a server carries out are refused by their type."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")
    description: str | None = None
    input_schema: dict[str, Any]
    type: Literal["custom"] | None = None
    strict: bool | None = Field(default=None, description="Changes nothing.")
    cache_control: CacheControl | None = None
    eager_input_streaming: bool | None = Field(default=None, description="Changes nothing.")


class ToolChoice(Strict):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False

    @model_validator(mode="after")
    def _names_a_tool(self) -> Self:
        if (self.name is not None) != (self.type == "tool"):
            raise ValueError("name must be given with type tool, and with no other type")
        return self


class Thinking(Strict):
    """enabled: the model reasons, for so many tokens at most. disabled: it does not. adaptive: as it likes.

    display: omitted leaves reasoning out of the answer.
    """

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(default=None, ge=1)
    display: Literal["summarized", "omitted"] | None = Field(default=None, description="summarized: in full.")

    @model_validator(mode="after")
    def _has_a_budget(self) -> Self:
        if (self.budget_tokens is not None) != (self.type == "enabled"):
            raise ValueError("budget_tokens must be given with type enabled, and with no other type")
        return self


class OutputFormat(Strict):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Strict):
    format: OutputFormat | None = None
    effort: str | None = Field(default=None, description="For chat templates that read reasoning_effort.")


class Metadata(Strict):
    user_id: str | None = Field(default=None, description="A label; changes nothing.")


class CountTokensRequest(Strict):
    """What makes the prompt."""

    model: str | None = None
    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    system: str | list[TextBlock] | None = None
    tools: list[Tool] | None = Field(default=None, max_length=256)
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check_tools(self) -> Self:
        if self.tool_choice is not None and self.tool_choice.type != "none" and not self.tools:
            raise ValueError("tool_choice must be given with tools")
        return self


class MessagesRequest(CountTokensRequest):
    """Anthropic's fields; seed, priority, cache_salt and chat_template_kwargs are ours. Others are refused by name."""

    max_tokens: int = Field(ge=1)
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = Field(default=None, ge=0)
    stop_sequences: list[str] | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    seed: int | None = None
    priority: int = Field(default=0, description="The lower, the earlier.")
    cache_salt: str | None = Field(default=None, description="Cached prompts are shared within a salt only.")

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        budget = self.thinking.budget_tokens if self.thinking is not None else None
        if budget is not None and budget >= self.max_tokens:
            raise ValueError("thinking.budget_tokens must be below max_tokens, which counts reasoning too")
        return self
