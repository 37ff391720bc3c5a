"""`/v1/responses`: what may be asked. OpenAI's fields, with extensions of vLLM's."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from deepseek.errors import GenerationError
from deepseek.sampling import StructuredOutput
from deepseek.sampling_names import LENGTH_ALIASES
from deepseek.server.protocol.fields import CACHE_SALT, PRIORITY, StructuredOutputs
from deepseek.server.protocol.ignored_fields import ignore
from deepseek.server.protocol.peer_fields import CACHE_HINTS, SAMPLING_IGNORED, tables_for
from deepseek.server.protocol.response_input import InputItem, readable_items
from deepseek.server.protocol.tolerance import CONTRADICTION, Notes, Refused, RequestBody, RequestModel, set_within
from deepseek.server.protocol.tools import MAX_TOOLS, TOOL_NAME, adapt_tool_choice, offered_tools

MAX_ITEMS = 10_000
MAX_TOP_LOGPROBS = 20
_LOGPROBS = "message.output_text.logprobs"
_SAMPLING = {
    "repetition_penalty", "frequency_penalty", "presence_penalty", "min_p", "seed", "stop", "structured_outputs",
}  # fmt: skip
_ALIASES, _REFUSED = tables_for(_SAMPLING)


class NamespaceMember(RequestModel):
    """A function, or a tool with one text as input."""

    ignored: ClassVar = {
        "format": "the input is free text",
        **CACHE_HINTS,
        **dict.fromkeys(
            ("defer_loading", "allowed_callers", "output_schema", "async"), "every tool is loaded and waited for"
        ),
    }
    adapted: ClassVar = {"function": "its fields, beside the type"}

    type: Literal["function", "custom"]
    name: str = Field(pattern=TOOL_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = Field(default=None, description="Changes nothing.")

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        inner = values.pop("function", None)  # as /v1/chat/completions writes it
        if isinstance(inner, dict):
            for name, value in inner.items():
                values.setdefault(name, value)
        values.setdefault("type", "function")


class FunctionTool(NamespaceMember):
    """namespace: several tools under one name, which their calls carry."""

    type: Literal["function", "custom", "namespace"]  # type: ignore[assignment]
    tools: list[NamespaceMember] | None = Field(default=None, max_length=MAX_TOOLS)

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        super().adapt(values, notes)
        if isinstance(values.get("tools"), list):
            values["tools"] = offered_tools(values["tools"], notes.below("tools[]"), taken=("function", "custom"))


class NamedTool(RequestModel):
    adapted: ClassVar = {"function": "name"}
    ignored: ClassVar = {"namespace": "a name stands for one tool"}

    type: Literal["function", "custom"]
    name: str

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        inner = values.pop("function", None) or values.pop("custom", None)
        if isinstance(inner, dict):
            values.setdefault("name", inner.get("name"))


class TextFormat(RequestModel):
    """strict may be true or false: the schema is always held to."""

    adapted: ClassVar = {"json_schema": "its fields, beside the type"}
    refused: ClassVar = {"syntax": Refused("use json_schema"), "definition": Refused("use json_schema")}

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        inner = values.pop("json_schema", None)
        if isinstance(inner, dict):
            for name, value in inner.items():
                values.setdefault(name, value)
        if values.get("type") == "json_object" and values.get("schema"):
            values["type"] = "json_schema"
        if values.get("type") == "text":
            values.pop("schema", None)

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if (self.schema_ is not None) != (self.type == "json_schema"):
            raise ValueError("schema must be given with type json_schema, and with no other type")
        return self


class TextConfig(RequestModel):
    ignored: ClassVar = {"verbosity": "a hint that no chat template here reads"}

    format: TextFormat | None = None


class Reasoning(RequestModel):
    ignored: ClassVar = {
        "summary": "none is made: reasoning comes in full",
        "generate_summary": "none is made: reasoning comes in full",
        "context": "reasoning comes in full",
        "mode": "a hint that no chat template here reads",
        "exclude": "reasoning comes in full",
    }
    adapted: ClassVar = {"enabled": "effort none, where it is false", "max_tokens": "thinking_budget"}

    effort: str | None = Field(default=None, description="For chat templates that read reasoning_effort.")


class StreamOptions(RequestModel):
    ignored: ClassVar = {"include_obfuscation": "nothing is padded", "include_usage": "usage comes with the last event"}


class ResponsesRequest(RequestBody):
    """Other fields are ignored. store: true unless said otherwise, as with OpenAI."""

    aliases: ClassVar = {
        **_ALIASES,
        **dict.fromkeys(("max_tokens", "max_completion_tokens", *LENGTH_ALIASES), "max_output_tokens"),
    }
    ignored: ClassVar = {
        **SAMPLING_IGNORED,
        **dict.fromkeys(("background", "background_options"), "the answer is complete when it comes"),
        "truncation": "a prompt that is too long is refused",
        "context_management": "the client's history is taken as it is; a longer one is refused",
        "max_tool_calls": "bounds a provider's own tools",
        "access_programs": "a service that is not offered here",
    }
    refused: ClassVar = {
        **_REFUSED,
        "prompt": Refused("send what it holds as instructions and input"),
        "conversation": Refused("use previous_response_id, or send its items in input"),
    }
    adapted: ClassVar = {
        "reasoning_effort": "reasoning.effort",
        "enable_thinking": "reasoning.effort none, or for chat templates that read it",
        "response_format": "text.format",
    }
    bounds: ClassVar = frozenset({"max_output_tokens"})

    model: str | None = None
    input: str | Annotated[list[InputItem], Field(max_length=MAX_ITEMS)]
    instructions: str | None = Field(default=None, description="A system message; not kept for the next response.")
    previous_response_id: str | None = None
    store: bool = True
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[FunctionTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool = True
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    include: list[str] | None = Field(
        default=None, description=f"{_LOGPROBS}. Reasoning comes in plain text, so that nothing is encrypted."
    )
    top_logprobs: int | None = Field(default=None, ge=0, description=f"With include: {_LOGPROBS}.")
    metadata: dict[str, Any] | None = Field(default=None, description="Labels; change nothing.")
    user: str | None = Field(default=None, description="A label; changes nothing.")

    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = Field(default=None, description="As vLLM's benchmark asks.")
    structured_outputs: StructuredOutputs | None = None
    thinking_budget: int | None = Field(default=None, description="Tokens of reasoning at most; below 0: no bound.")
    chat_template_kwargs: dict[str, Any] | None = None
    priority: int = Field(default=0, description=PRIORITY)
    cache_salt: str | None = Field(default=None, description=CACHE_SALT)

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        if isinstance(values.get("input"), list):
            values["input"] = readable_items(values["input"], notes)
        if isinstance(values.get("tools"), list):
            values["tools"] = offered_tools(values["tools"], notes, taken=("function", "custom", "namespace"))
        adapt_tool_choice(values, notes)
        _adapt_reasoning(values, notes)
        set_within(values, "text", "format", values.pop("response_format", None))

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if not self.tools:
            if self.tool_choice not in (None, "auto", "none"):
                raise ValueError("tool_choice needs tools that this server can offer to the model")
            self.tool_choice = None
        for name in self.include or ():
            if name != _LOGPROBS or not self.wants_logprobs:
                ignore("include[]")
        if self.stream_options is not None and not self.stream:
            ignore("stream_options")
        if self.top_logprobs is not None:
            self.top_logprobs = min(self.top_logprobs, MAX_TOP_LOGPROBS)
        return self

    @property
    def wants_logprobs(self) -> bool:
        """Not where tools may be called: the tokens of calls would be among them."""
        return _LOGPROBS in (self.include or ()) and (not self.tools or self.tool_choice == "none")

    @property
    def is_continued(self) -> bool:
        """Whether the answer goes on with the last item, which the assistant has not finished."""
        last = self.items[-1] if self.items else None
        return last is not None and (last.type, last.role, last.status) == ("message", "assistant", "in_progress")

    @property
    def items(self) -> list[InputItem]:
        """A text is what the user says."""
        return [InputItem(role="user", content=self.input)] if isinstance(self.input, str) else self.input

    @property
    def structured(self) -> StructuredOutput | None:
        form = self.text.format if self.text is not None else None
        asked = self.structured_outputs.asked() if self.structured_outputs is not None else {}
        if form is None or form.type == "text":
            return StructuredOutput(**asked) if asked else None
        if asked:
            raise GenerationError("text.format and structured_outputs exclude each other: give one")
        if form.schema_ is None:
            return StructuredOutput(json_object=True)
        return StructuredOutput(json_schema=form.schema_)


def _adapt_reasoning(values: dict[str, Any], notes: Notes) -> None:
    """OpenRouter's fields of reasoning, and those of /v1/chat/completions."""
    set_within(values, "reasoning", "effort", values.pop("reasoning_effort", None))
    reasoning, wanted = values.get("reasoning"), values.pop("enable_thinking", None)
    if isinstance(reasoning, dict):
        reasoning = values["reasoning"] = dict(reasoning)
        enabled, budget = reasoning.pop("enabled", None), reasoning.pop("max_tokens", None)
        wanted = wanted if enabled is None else enabled
        if budget is not None:
            values.setdefault("thinking_budget", budget)
    if wanted is False:
        set_within(values, "reasoning", "effort", "none")
        if isinstance(values["reasoning"], dict) and values["reasoning"].get("effort") != "none":
            notes.refuse("reasoning", "is disabled and has an effort: give one", CONTRADICTION)
    elif wanted is True:
        for name in ("enable_thinking", "thinking"):
            set_within(values, "chat_template_kwargs", name, True)
