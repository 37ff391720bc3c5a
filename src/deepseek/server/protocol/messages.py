"""`/v1/messages`: what may be asked. Anthropic's fields, with a few extensions."""

import json
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from deepseek.sampling import StructuredOutput
from deepseek.sampling_names import LENGTH_ALIASES
from deepseek.server.protocol.chat_history import as_blocks
from deepseek.server.protocol.fields import CACHE_SALT, PRIORITY
from deepseek.server.protocol.peer_fields import (
    CACHE_HINTS,
    PROMPT_REFUSED,
    SAMPLING_IGNORED,
    UNREADABLE,
    tables_for,
)
from deepseek.server.protocol.tolerance import Notes, RequestBody, RequestModel, set_within
from deepseek.server.protocol.tools import MAX_TOOLS, TOOL_NAME, offered_tools

MAX_MESSAGES = 10_000
_ALIASES, _REFUSED = tables_for(
    {"repetition_penalty", "frequency_penalty", "presence_penalty", "min_p", "seed", "stop", "stop_sequences"}
)
THREAD_NOT_FOUND = "thread_not_found"

_LOADED = "every tool is loaded"


class TextBlock(RequestModel):
    ignored: ClassVar = {**CACHE_HINTS, "citations": "the model cites nothing"}

    type: Literal["text"]
    text: str


_BLOCK_FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "text": ({"text"}, set()),
    "thinking": ({"thinking"}, {"signature"}),
    "tool_use": ({"id", "name", "input"}, set()),
    "tool_result": ({"tool_use_id"}, {"content", "is_error"}),
}
"""For each type of block the fields that it must and may have beside its type."""


class Block(RequestModel):
    """A part of a message. Images and files are refused: the models read text."""

    ignored: ClassVar = {
        **CACHE_HINTS,
        "citations": "the model cites nothing",
        "caller": "every tool is called by the model",
        "toolset_name": "a label",
    }

    type: Literal["text", "thinking", "tool_use", "tool_result"]
    text: str | None = None
    thinking: str | None = None
    signature: str | None = Field(default=None, description="Is not looked at.")
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        kind = values.get("type")
        if kind == "thinking" and values.get("thinking") is None:
            values["thinking"] = ""  # hidden: there is a signature alone
        if kind == "tool_use" and isinstance(values.get("input"), str):
            values["input"] = _object(values["input"])
        if kind == "tool_result" and isinstance(values.get("content"), dict):  # what a tool made, not yet as text
            values["content"] = json.dumps(values["content"], ensure_ascii=False)
        if kind == "tool_result" and isinstance(values.get("content"), list):
            values["content"] = [
                _readable(block, notes.item("content", number)) for number, block in enumerate(values["content"])
            ]
        must, may = _BLOCK_FIELDS.get(str(kind), (cls.shape.names, cls.shape.names))
        for name in (cls.shape.names & values.keys()) - must - may - {"type"}:
            if values.pop(name) is not None:
                notes.ignore(name)

    @model_validator(mode="after")
    def _has_its_fields(self) -> Self:
        must, may = _BLOCK_FIELDS[self.type]
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        if missing := sorted(must - given):
            raise ValueError(f"a block of type {self.type} must have the field {missing[0]}")
        if others := sorted(given - must - may - {"type"}):
            raise ValueError(f"a block of type {self.type} cannot have the field {others[0]}")
        return self


_ROLE_BLOCKS = {
    "user": {"text", "tool_result"},
    "assistant": {"text", "thinking", "tool_use"},
    "system": {"text"},
}
_UNREADABLE = {"image", "document", "container_upload", "audio", "video", "file"}


class Message(RequestModel):
    refused: ClassVar = UNREADABLE

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        as_blocks(values)
        content = values.get("content")
        if content is None and values.get("role") == "assistant":
            values["content"] = ""
        if isinstance(content, list):
            values["content"] = [
                _readable(block, below)
                for number, block in enumerate(content)
                if not _left_out(block, values.get("role"), below := notes.item("content", number))
            ]

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        blocks = [] if isinstance(self.content, str) else self.content
        if self.role == "user" and not self.content:
            raise ValueError("a message with role user must have content")
        for block in blocks:
            if block.type not in _ROLE_BLOCKS[self.role]:
                raise ValueError(f"a message with role {self.role} cannot have a block of type {block.type}")
        return self


def _left_out(block: Any, role: Any, notes: Notes) -> bool:
    """Blocks without text for the model: hidden reasoning, and what a provider's own tools did. They are recorded.

    Of the user's only those that answer such a tool: what a user says must not be missing.
    """
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str) or kind in _BLOCK_FIELDS or kind in _UNREADABLE:
        return False
    hosted = kind == "redacted_thinking" or kind.endswith(("_tool_use", "_tool_result", "tool_reference"))
    if role == "assistant" or hosted:
        notes.ignore(kind, known=False)
        return True
    return False


def _readable(block: Any, notes: Notes) -> Any:
    """Documents and search results that are text, as text. Refuses what the model cannot see."""
    kind = block.get("type") if isinstance(block, dict) else None
    if kind in ("search_result", "compaction"):
        return {"type": "text", "text": _titled(block, _joined(block.get("content"), notes))}
    source = block.get("source") if kind == "document" else None
    if isinstance(source, dict) and source.get("type") == "text" and isinstance(source.get("data"), str):
        return {"type": "text", "text": _titled(block, source["data"])}
    if isinstance(source, dict) and source.get("type") == "content":
        return {"type": "text", "text": _titled(block, _joined(source.get("content"), notes))}
    if kind == "tool_reference":
        return {"type": "text", "text": str(block.get("tool_name", ""))}
    if isinstance(kind, str) and kind in _UNREADABLE:
        notes.refuse("type", f"is {kind!r}, which this model cannot read: send text")
    return block


def _titled(block: dict[str, Any], text: str) -> str:
    heads = [block[name] for name in ("title", "context", "source") if isinstance(block.get(name), str)]
    return "\n".join([*heads, text])


def _joined(content: Any, notes: Notes) -> str:
    if isinstance(content, list):
        for part in content:
            _readable(part, notes)  # refuses pictures among the texts
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _object(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text


class Tool(RequestModel):
    """One that the client carries out. Tools that a provider carries out are left out."""

    ignored: ClassVar = {
        **CACHE_HINTS,
        "strict": "arguments are held to the schema where a call is forced",
        "eager_input_streaming": "arguments come when they are certain",
        "defer_loading": _LOADED,
        "allowed_callers": "every tool is called by the model",
        "input_examples": "no chat template here shows them",
    }

    aliases: ClassVar = {"parameters": "input_schema"}
    adapted: ClassVar = {"function": "its fields, beside the type"}

    name: str = Field(pattern=TOOL_NAME)
    description: str | None = None
    input_schema: dict[str, Any]
    type: Literal["custom"] | None = None

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        """OpenAI's tools become Anthropic's."""
        inner = values.pop("function", None)
        if isinstance(inner, dict):
            values.update({name: value for name, value in inner.items() if name not in values})
        if values.get("type") == "function":
            values["type"] = "custom"
        if values.get("input_schema") is None and values.get("parameters") is None:
            values["input_schema"] = {"type": "object", "properties": {}}


class ToolChoice(RequestModel):
    adapted: ClassVar = {"function": "name, with type tool"}

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        """OpenAI's choices become Anthropic's."""
        inner = values.pop("function", None)
        if values.get("type") == "function":
            values["type"] = "tool"
            values.setdefault("name", inner.get("name") if isinstance(inner, dict) else None)
        if values.get("type") == "required":
            values["type"] = "any"

    @model_validator(mode="after")
    def _names_a_tool(self) -> Self:
        if (self.name is not None) != (self.type == "tool"):
            raise ValueError("name must be given with type tool, and with no other type")
        return self


class Thinking(RequestModel):
    """enabled: the model reasons, for so many tokens at most. disabled: it does not. adaptive: as it likes.

    display: omitted leaves reasoning out of the answer.
    """

    ignored: ClassVar = {"block_binding": "reasoning is not bound to anything"}

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(default=None, ge=0, description="Counts with type enabled.")
    display: str | None = Field(default=None, description="omitted; else reasoning comes in full.")

    @property
    def budget(self) -> int | None:
        return self.budget_tokens if self.type == "enabled" else None


class OutputFormat(RequestModel):
    """As /v1/chat/completions has it, too: text, json_object, and a schema beside its name."""

    adapted: ClassVar = {"json_schema": "its schema"}
    ignored: ClassVar = dict.fromkeys(("name", "description", "strict"), "the schema is always held to")

    type: Literal["json_schema", "json_object", "text"]
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        inner = values.pop("json_schema", None)
        if isinstance(inner, dict):
            values.setdefault("schema", inner.get("schema"))

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if self.type == "json_schema" and self.schema_ is None:
            raise ValueError("schema must be given with type json_schema")
        return self

    @property
    def structured(self) -> StructuredOutput | None:
        if self.type == "text":
            return None
        if self.schema_ is None:
            return StructuredOutput(json_object=True)
        return StructuredOutput(json_schema=self.schema_)


class OutputConfig(RequestModel):
    ignored: ClassVar = {"task_budget": "max_tokens holds"}

    format: OutputFormat | None = None
    effort: str | None = Field(default=None, description="For chat templates that read reasoning_effort.")


class CountTokensRequest(RequestBody):
    """What makes the prompt."""

    refused: ClassVar = PROMPT_REFUSED
    ignored: ClassVar = {
        **SAMPLING_IGNORED,
        **dict.fromkeys(
            ("context_management", "compaction"), "the client's history is taken as it is; a longer one is refused"
        ),
        **dict.fromkeys(
            ("container", "mcp_servers", "fallbacks", "fallback_credit_token", "inference_geo", "speed"),
            "a service that is not offered here",
        ),
        **dict.fromkeys(
            ("betas", "anthropic_beta", "anthropic_version", "user_profile_id", "workspace_id", "diagnostics"),
            "a label",
        ),
    }
    adapted: ClassVar = {
        "reasoning_effort": "output_config.effort",
        **dict.fromkeys(("output_format", "response_format"), "output_config.format"),
        "thread": "the whole history is sent again: to continue one is answered with thread_not_found",
    }

    model: str | None = None
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    system: str | list[TextBlock] | None = None
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        thread = values.pop("thread", None)
        if isinstance(thread, dict) and thread.get("type") == "continue":
            notes.refuse("thread", "is not kept here: send the whole history", THREAD_NOT_FOUND)
        if thread is not None:
            notes.ignore("thread")
        for name in ("output_format", "response_format"):
            set_within(values, "output_config", "format", values.pop(name, None))
        set_within(values, "output_config", "effort", values.pop("reasoning_effort", None))
        if isinstance(values.get("tool_choice"), str):
            values["tool_choice"] = {"type": values["tool_choice"]}
        if isinstance(values.get("tools"), list):
            values["tools"] = offered_tools(values["tools"], notes, taken=("custom", "function"))
        thinking = values.get("thinking")
        if isinstance(thinking, dict) and thinking.get("type") not in ("enabled", "disabled", "adaptive"):
            values.pop("thinking")
            notes.ignore("thinking")

    @model_validator(mode="after")
    def _check_tools(self) -> Self:
        if not self.tools and self.tool_choice is not None:
            if self.tool_choice.type not in ("auto", "none"):
                raise ValueError("tool_choice needs tools that this server can offer to the model")
            self.tool_choice = None
        return self


class MessagesRequest(CountTokensRequest):
    """Anthropic's fields; seed, priority, cache_salt and chat_template_kwargs are ours. Others are ignored."""

    aliases: ClassVar = {
        **{alias: name for alias, name in _ALIASES.items() if name != "stop"},
        **dict.fromkeys(("stop", "stop_sequence", "stop_strings", "stop_words", "stopping_strings"), "stop_sequences"),
        **dict.fromkeys(("max_completion_tokens", *LENGTH_ALIASES), "max_tokens"),
    }
    refused: ClassVar = _REFUSED
    bounds: ClassVar = frozenset({"max_tokens"})

    max_tokens: int = Field(ge=0)
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    stop_sequences: list[str] | None = None
    seed: int | None = None
    priority: int = Field(default=0, description=PRIORITY)
    cache_salt: str | None = Field(default=None, description=CACHE_SALT)

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        super().adapt(values, notes)
        for name in ("stop", "stop_sequence", "stop_sequences"):
            if isinstance(values.get(name), str):
                values[name] = [values[name]]
