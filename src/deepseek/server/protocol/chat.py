"""`/v1/chat/completions`: what may be asked."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from deepseek.sampling import MOST_LOGPROBS
from deepseek.sampling_names import LENGTH_ALIASES
from deepseek.server.protocol.fields import SamplingFields
from deepseek.server.protocol.ignored_fields import ignore
from deepseek.server.protocol.peer_fields import CACHE_HINTS, UNREADABLE
from deepseek.server.protocol.tolerance import CONTRADICTION, Notes, Refused, RequestModel
from deepseek.server.protocol.tools import (
    CUSTOM_PARAMETERS,
    MAX_TOOLS,
    TOOL_NAME,
    FunctionName,
    NamedToolChoice,
    adapt_tool_choice,
    offered_tools,
)

MAX_MESSAGES = 10_000
_TEXT_PARTS = ("input_text", "output_text")
_THINKING_PARTS = ("thinking", "reasoning", "redacted_thinking")
_ECHO = "what clients add to an answer that they send back"


class ContentPart(RequestModel):
    """Text only: other kinds are refused by name."""

    ignored: ClassVar = {**CACHE_HINTS, "annotations": _ECHO}
    refused: ClassVar = UNREADABLE

    type: Literal["text", "refusal"]
    text: str | None = None
    refusal: str | None = None

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        kind = values.get("type")
        if kind in _TEXT_PARTS:
            values["type"] = "text"
        elif isinstance(kind, str) and kind not in ("text", "refusal"):
            notes.refuse("type", f"is {kind!r:.100}, which this model cannot read: send text")

    @model_validator(mode="after")
    def _has_its_field(self) -> Self:
        if getattr(self, self.type) is None:
            raise ValueError(f"a part of type {self.type} must have the field {self.type}")
        return self


class CalledFunction(RequestModel):
    """arguments: JSON text, or the object itself."""

    name: str
    arguments: str | dict[str, Any] = ""


class CustomCall(RequestModel):
    name: str
    input: str = ""


class ToolCall(RequestModel):
    ignored: ClassVar = {**CACHE_HINTS, "extra_content": _ECHO, "provider_specific_fields": _ECHO}

    id: str | None = None
    type: Literal["function", "custom"] = "function"
    function: CalledFunction | None = None
    custom: CustomCall | None = None
    index: int | None = None

    @model_validator(mode="after")
    def _has_its_field(self) -> Self:
        if getattr(self, self.type) is None:
            raise ValueError(f"a tool call of type {self.type} must have the field {self.type}")
        return self


class ChatMessage(RequestModel):
    ignored: ClassVar = {
        **dict.fromkeys(
            (
                "annotations", "audio", "reasoning_details", "thinking_blocks", "provider_specific_fields", "images",
                "parsed", "id", "finish_reason", "stop_reason", "timestamp", "metadata", "tool_plan", "citations",
                "token_ids",
            ),
            _ECHO,
        ),
        **CACHE_HINTS,
        "prefix": "on the last message: continue_final_message",
        "partial": "on the last message: continue_final_message",
    }  # fmt: skip
    adapted: ClassVar = {"function_call": "tool_calls"}
    refused: ClassVar = {"tools": Refused("give tools beside messages")}

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        if values.get("role") == "function":
            values["role"] = "tool"
        if values.get("role") == "tool" and "content" in values and values["content"] is None:
            values["content"] = ""
        for name in ("audio", *UNREADABLE):  # in an assistant's message they echo an answer
            if values.get(name) and values.get("role") != "assistant":
                notes.refuse(name, "cannot be read by this model: send text")
        call = values.pop("function_call", None)
        if call is not None and not values.get("tool_calls"):
            values["tool_calls"] = [{"function": call}]
        if isinstance(values.get("content"), list):
            _adapt_thinking_parts(values)
            values["content"] = [{"type": "text", "text": one} if isinstance(one, str) else one
                                 for one in values["content"]]  # fmt: skip

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise ValueError("content must be a text or a list of parts")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("tool_calls must be of a message with role assistant")
        return self


class Function(RequestModel):
    ignored: ClassVar = CACHE_HINTS

    name: str = Field(pattern=TOOL_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class CustomTool(RequestModel):
    """A tool with one text as input. The model writes it as the argument `input` of a function."""

    ignored: ClassVar = {"format": "the input is free text"}

    name: str = Field(pattern=TOOL_NAME)
    description: str | None = None


class Tool(RequestModel):
    ignored: ClassVar = {**CACHE_HINTS, "defer_loading": "every tool is loaded"}

    type: Literal["function", "custom"]
    function: Function | None = None
    custom: CustomTool | None = None

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        kind = values.setdefault("type", "function")
        if isinstance(kind, str) and kind in ("function", "custom") and kind not in values and "name" in values:
            # As /v1/responses writes it: the function's fields beside the type.
            fields = [name for name in values if name in (Function if kind == "function" else CustomTool).shape.names]
            values[kind] = {name: values.pop(name) for name in fields}

    @model_validator(mode="after")
    def _has_its_field(self) -> Self:
        if getattr(self, self.type) is None:
            raise ValueError(f"a tool of type {self.type} must have the field {self.type}")
        return self


class ChatCompletionRequest(SamplingFields):
    """OpenAI's fields, with vLLM's extensions and other servers' names for them. Others are ignored and listed."""

    aliases: ClassVar = {
        **LENGTH_ALIASES,
        "thinking_budget_tokens": "thinking_budget",
        "thinking_token_budget": "thinking_budget",
        "reasoning_budget": "thinking_budget",
    }
    adapted: ClassVar = {
        "thinking": "enable_thinking and thinking_budget",
        "think": "enable_thinking or reasoning_effort",
        "reasoning": "reasoning_effort, enable_thinking, thinking_budget and include_reasoning",
        "n_probs": "logprobs and top_logprobs",
    }
    refused: ClassVar = {
        "suffix": Refused("use /v1/completions"),
        "echo": Refused("use /v1/completions"),
    }
    ignored: ClassVar = dict.fromkeys(("add_special_tokens", "add_bos_token"), "the chat template writes them")
    bounds: ClassVar = frozenset({"max_completion_tokens", "thinking_budget"})

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = Field(default=None, description="-1: as many as the context holds.")
    max_tokens: int | None = Field(default=None, description="The older name of max_completion_tokens.")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=-1, description="-1: as many as there are to have.")
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Literal["auto", "none", "required"] | NamedToolChoice | None = None
    functions: list[Function] | None = Field(
        default=None, max_length=MAX_TOOLS, description="OpenAI's older tools; a call is answered as function_call."
    )
    function_call: Literal["auto", "none"] | FunctionName | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = Field(
        default=None, description="For templates that read it; none: no reasoning, where the template can."
    )
    enable_thinking: bool | None = Field(default=None, description="For templates that read it.")
    thinking_budget: int | None = Field(default=None, description="Tokens of reasoning at most; below 0: no bound.")
    include_reasoning: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_ids: bool = Field(default=False, description="Tell the ids of the prompt's and the answer's tokens.")
    return_tokens_as_token_ids: bool = Field(default=False, description="Log-probabilities name tokens token_id:ID.")

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        super().adapt(values, notes)
        _adapt_logprobs(values)
        _adapt_reasoning(values, notes)
        if isinstance(values.get("tools"), list):
            values["tools"] = offered_tools(values["tools"], notes, taken=("function", "custom"))
        adapt_tool_choice(values, notes)
        adapt_prefix(values)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.top_logprobs and self.logprobs is None:
            self.logprobs = True
        if self.top_logprobs == -1:
            self.top_logprobs = MOST_LOGPROBS
        if self.tools and self.functions:
            raise ValueError("functions is the older name of tools: give tools alone")
        if not self.tools and not self.functions:
            if self.tool_choice not in (None, "none", "auto") or isinstance(self.function_call, FunctionName):
                raise ValueError("tool_choice needs tools: give them, or leave it out")
            self.tool_choice = self.function_call = None
        self._check_choice()
        self._check_reasoning()
        if self.stream_options is not None and not self.stream:
            ignore("stream_options")
            self.stream_options = None
        if self.continue_final_message and "add_generation_prompt" not in self.model_fields_set:
            self.add_generation_prompt = False
        return self

    def _check_choice(self) -> None:
        """tool_choice and its older name hold for functions and tools alike."""
        older, choice = self.function_call, self.tool_choice
        if older is not None and choice is not None and self.choice != getattr(choice, "name", choice):
            raise ValueError("function_call is the older name of tool_choice, but their values differ: give one")

    def _check_reasoning(self) -> None:
        values = self.chat_template_kwargs or {}
        for name in ("enable_thinking", "thinking"):
            if isinstance(given := values.get(name), bool) and self.enable_thinking not in (None, given):
                raise ValueError(f"enable_thinking and chat_template_kwargs.{name} differ: give one")
        if self.enable_thinking and self.reasoning_effort == "none":
            raise ValueError("enable_thinking true contradicts reasoning_effort none: give one")

    @property
    def offered(self) -> list[dict[str, Any]]:
        """Tools as `ChatTask.tools`."""
        if self.functions:
            return [{"type": "function", "function": one.model_dump(exclude_none=True)} for one in self.functions]
        return [as_function(tool) for tool in self.tools or ()]

    @property
    def custom_tools(self) -> frozenset[str]:
        """Names of tools whose calls are answered with one text."""
        return frozenset(tool.custom.name for tool in self.tools or () if tool.custom is not None)

    @property
    def choice(self) -> Literal["auto", "none", "required"] | FunctionName:
        """As `ChatTask.tool_choice`."""
        choice = self.function_call if self.function_call is not None else self.tool_choice
        return choice.function if isinstance(choice, NamedToolChoice) else choice or "auto"


def as_function(tool: Tool) -> dict[str, Any]:
    """As chat templates show it."""
    if tool.custom is None:
        return tool.model_dump(exclude_none=True)
    described = tool.custom.model_dump(exclude_none=True)
    return {"type": "function", "function": {**described, "parameters": CUSTOM_PARAMETERS}}


def adapt_prefix(values: dict[str, Any]) -> None:
    """DeepSeek's and Mistral's prefix, Moonshot's partial: the last message is the beginning of the answer."""
    messages = values.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    if isinstance(last, dict) and last.get("role") == "assistant" and (last.get("prefix") or last.get("partial")):
        values.setdefault("continue_final_message", True)


def _adapt_thinking_parts(message: dict[str, Any]) -> None:
    """Reasoning among the parts of an assistant's message, as clients of Anthropic's models keep it."""
    if message.get("role") != "assistant":
        return
    parts: tuple[list[Any], list[Any]] = ([], [])
    for part in message["content"]:
        parts[isinstance(part, dict) and part.get("type") in _THINKING_PARTS].append(part)
    message["content"], thinking = parts
    if thinking:
        texts = [part.get("thinking") or part.get("text") for part in thinking]
        message.setdefault("reasoning_content", "".join(text for text in texts if isinstance(text, str)))


def _adapt_logprobs(values: dict[str, Any]) -> None:
    """llama.cpp's n_probs, and the number that /v1/completions takes; 0: none."""
    numbers = [values.pop("n_probs", None)]
    if isinstance(values.get("logprobs"), int) and not isinstance(values["logprobs"], bool):
        numbers.append(values.pop("logprobs"))
    number = max((one for one in numbers if isinstance(one, int)), default=0)
    if number > 0:
        values.setdefault("logprobs", True)
        values.setdefault("top_logprobs", number)


def _adapt_reasoning(values: dict[str, Any], notes: Notes) -> None:
    """DeepSeek's and Anthropic's thinking, Ollama's think, OpenRouter's reasoning."""
    thinking = values.pop("thinking", None)
    if isinstance(thinking, dict):
        if thinking.get("type") in ("enabled", "disabled"):
            _set_once(values, "enable_thinking", thinking["type"] == "enabled", "thinking.type", notes)
        _set_once(values, "thinking_budget", thinking.get("budget_tokens"), "thinking.budget_tokens", notes)
    think = values.pop("think", None)
    _set_once(values, "enable_thinking" if isinstance(think, bool) else "reasoning_effort", think, "think", notes)
    reasoning = values.pop("reasoning", None)
    if isinstance(reasoning, dict):
        for name, field in _REASONING.items():
            _set_once(values, field, reasoning.get(name), f"reasoning.{name}", notes)
        if reasoning.get("exclude"):
            values.setdefault("include_reasoning", False)


def _set_once(values: dict[str, Any], field: str, value: Any, source: str, notes: Notes) -> None:
    """Of two bounds the lower one; of two other values neither."""
    if value is None:
        return
    given = values.get(field)
    if field == "thinking_budget" and isinstance(given, int) and isinstance(value, int):
        values[field] = min((given, value), key=lambda bound: bound if bound >= 0 else float("inf"))
    elif given is None:
        values[field] = value
    elif given != value:
        notes.refuse(source, f"and {field} differ: give one", CONTRADICTION)


_REASONING = {"effort": "reasoning_effort", "enabled": "enable_thinking", "max_tokens": "thinking_budget"}
