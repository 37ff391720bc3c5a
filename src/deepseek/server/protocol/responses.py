"""`/v1/responses`: what may be asked. OpenAI's fields, with extensions of vLLM's."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from deepseek.sampling import StructuredOutput
from deepseek.server.protocol.fields import Strict

MOST_ITEMS = 10_000
Nothing = Annotated[list[Any], Field(max_length=0)]
Status = Literal["in_progress", "completed", "incomplete"]


class TextPart(Strict):
    """Text only: other kinds, such as input_image and input_file, are refused."""

    type: Literal["input_text", "output_text", "text", "reasoning_text", "summary_text", "refusal"]
    text: str | None = None
    refusal: str | None = None
    annotations: Nothing | None = None
    logprobs: list[Any] | None = Field(default=None, description="Is not looked at.")

    @model_validator(mode="after")
    def _has_its_field(self) -> Self:
        field = "refusal" if self.type == "refusal" else "text"
        if getattr(self, field) is None:
            raise ValueError(f"a part of type {self.type} must have the field {field}")
        return self

    @property
    def said(self) -> str:
        return self.text or self.refusal or ""


_ITEM_FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "message": ({"role", "content"}, {"phase"}),
    "function_call": ({"call_id", "name", "arguments"}, set()),
    "function_call_output": ({"call_id", "output"}, set()),
    "reasoning": (set(), {"summary", "content", "encrypted_content"}),
}
"""For each type of item the fields that it must and may have beside type, id and status."""


class InputItem(Strict):
    """A message, a call that the model made, what came of it, or reasoning before one of these."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    id: str | None = None
    status: Status | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[TextPart] | None = None
    phase: str | None = Field(default=None, description="Is not looked at.")
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[TextPart] | None = None
    summary: list[TextPart] | None = Field(default=None, description="Used where reasoning has no content.")
    encrypted_content: None = None

    @model_validator(mode="after")
    def _has_its_fields(self) -> Self:
        must, may = _ITEM_FIELDS[self.type]
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        if missing := sorted(must - given):
            raise ValueError(f"an item of type {self.type} must have the field {missing[0]}")
        if others := sorted(given - must - may - {"type", "id", "status"}):
            raise ValueError(f"an item of type {self.type} cannot have the field {others[0]}")
        if self.arguments is not None and not _is_object(self.arguments):
            raise ValueError("arguments must be the JSON text of an object")
        return self


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text or "{}"), dict)
    except (ValueError, RecursionError):
        return False


class FunctionTool(Strict):
    """Tools that a server carries out are refused by their type."""

    type: Literal["function"]
    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = Field(default=None, description="Changes nothing.")


class NamedTool(Strict):
    type: Literal["function"]
    name: str


class TextFormat(Strict):
    """strict may be true or false: the schema is always held to."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if (self.schema_ is not None) != (self.type == "json_schema"):
            raise ValueError("schema must be given with type json_schema, and with no other type")
        return self


class TextConfig(Strict):
    format: TextFormat | None = None


class Reasoning(Strict):
    effort: str | None = Field(default=None, description="For chat templates that read reasoning_effort.")
    summary: Literal["auto"] | None = Field(default=None, description="None is made: reasoning comes in full.")


class StreamOptions(Strict):
    include_obfuscation: Literal[False] | None = None


class ResponsesRequest(Strict):
    """What is not listed here is refused by name. store: true unless said otherwise, as with OpenAI."""

    model: str | None = None
    input: str | Annotated[list[InputItem], Field(min_length=1, max_length=MOST_ITEMS)]
    instructions: str | None = Field(default=None, description="A system message; not kept for the next response.")
    previous_response_id: str | None = None
    store: bool = True
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    tools: list[FunctionTool] | None = Field(default=None, max_length=256)
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool = True
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = Field(
        default=None, description="Reasoning comes in plain text, so that nothing is encrypted."
    )
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    truncation: Literal["disabled"] | None = None
    background: Literal[False] | None = None
    metadata: dict[str, str] | None = Field(default=None, max_length=16, description="Labels; change nothing.")
    user: str | None = Field(default=None, description="A label; changes nothing.")
    safety_identifier: str | None = Field(default=None, description="A label; changes nothing.")
    prompt_cache_key: str | None = Field(default=None, description="A label; the cache needs none.")
    service_tier: Literal["auto", "default"] | None = None

    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    thinking_budget: int | None = Field(default=None, ge=0, description="Tokens of reasoning at most.")
    chat_template_kwargs: dict[str, Any] | None = None
    priority: int = Field(default=0, description="The lower, the earlier.")
    cache_salt: str | None = Field(default=None, description="Cached prompts are shared within a salt only.")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.tool_choice not in (None, "auto", "none") and not self.tools:
            raise ValueError("tool_choice must be given with tools")
        if self.wants_logprobs and self.tools and self.tool_choice != "none":
            raise ValueError("include cannot ask for log-probabilities where tools may be called")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options must be given with stream: true only")
        if self.top_logprobs is not None and not self.wants_logprobs:
            raise ValueError('top_logprobs must be given with include: ["message.output_text.logprobs"]')
        return self

    @property
    def wants_logprobs(self) -> bool:
        return "message.output_text.logprobs" in (self.include or ())

    @property
    def items(self) -> list[InputItem]:
        """A text is what the user says."""
        return [InputItem(role="user", content=self.input)] if isinstance(self.input, str) else self.input

    @property
    def structured(self) -> StructuredOutput | None:
        form = self.text.format if self.text is not None else None
        if form is None or form.type == "text":
            return None
        if form.schema_ is None:
            return StructuredOutput(json_object=True)
        return StructuredOutput(json_schema=form.schema_)
