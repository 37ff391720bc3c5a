"""Items of `/v1/responses`: what a conversation consists of."""

import json
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from deepseek.server.protocol.chat_history import as_items
from deepseek.server.protocol.ignored_fields import IgnoredFields
from deepseek.server.protocol.peer_fields import CACHE_HINTS
from deepseek.server.protocol.tolerance import Notes, RequestModel, rewritten

_TEXT_PARTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text")
_CALL, _OUTPUT = "_call", "_call_output"


class TextPart(RequestModel):
    """Text only: other kinds, such as input_image and input_file, are refused."""

    ignored: ClassVar = {
        "annotations": "the model cites nothing",
        **CACHE_HINTS,
        "logprobs": "of an answer that is sent back",
    }

    type: Literal["input_text", "output_text", "text", "reasoning_text", "summary_text", "refusal"]
    text: str | None = None
    refusal: str | None = None

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        kind = values.get("type")
        if isinstance(kind, str) and kind not in (*_TEXT_PARTS, "refusal"):
            notes.refuse("type", f"is {kind!r:.100}, which this model cannot read: send text")

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
    "message": ({"role", "content"}, set()),
    "function_call": ({"call_id", "name"}, {"arguments", "namespace"}),
    "function_call_output": ({"call_id", "output"}, set()),
    "custom_tool_call": ({"call_id", "name"}, {"input", "namespace"}),
    "custom_tool_call_output": ({"call_id", "output"}, set()),
    "reasoning": (set(), {"summary", "content"}),
    "item_reference": ({"id"}, set()),
}
"""For each type of item the fields that it must and may have beside type, id and status."""
_ALWAYS = {"type", "id", "status"}


class InputItem(RequestModel):
    """A message, a call that the model made, what came of it, reasoning before one of these, or a stored one's id."""

    ignored: ClassVar = {
        **dict.fromkeys(("phase", "caller", "async", "internal_chat_message_metadata_passthrough"), "a label"),
        "encrypted_content": "reasoning comes in plain text",
        "created_by": "a label",
    }

    type: Literal[
        "message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "reasoning",
        "item_reference",
    ] = "message"  # fmt: skip
    id: str | None = None
    status: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[TextPart] | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: str | list[TextPart] | None = None
    summary: list[TextPart] | None = Field(default=None, description="Used where reasoning has no content.")

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        kind = values["type"] = values.get("type") or _kind(values)
        if kind == "message" and values.get("role") == "assistant" and values.get("content") is None:
            values["content"] = ""
        if str(kind).endswith((_CALL, _OUTPUT)) and values.get("call_id") is None:
            values["call_id"] = values.get("id")
        if kind == "function_call" and not isinstance(values.get("arguments"), str | None):
            values["arguments"] = json.dumps(values["arguments"])
        if isinstance(output := values.get("output"), dict) and _is_media(output.get("type")):
            values["output"] = [output]
        elif str(kind).endswith("_output") and not _is_text(values.get("output")):
            values["output"] = "" if values.get("output") is None else json.dumps(values["output"])
        must, may = _ITEM_FIELDS.get(str(kind), (cls.shape.names, cls.shape.names))
        for name in (cls.shape.names & values.keys()) - must - may - _ALWAYS:
            if values.pop(name) is not None:
                notes.ignore(name)

    @model_validator(mode="after")
    def _has_its_fields(self) -> Self:
        must, may = _ITEM_FIELDS[self.type]
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        if missing := sorted(must - given):
            raise ValueError(f"an item of type {self.type} must have the field {missing[0]}")
        if others := sorted(given - must - may - _ALWAYS):
            raise ValueError(f"an item of type {self.type} cannot have the field {others[0]}")
        return self


def read_items(stored: Sequence[dict[str, Any]]) -> list[InputItem]:
    """Items that this server stored: what was sent, and what it answered."""
    notes = Notes(IgnoredFields())
    return [InputItem.model_validate(rewritten(InputItem, item, notes)) for item in stored]


def readable_items(items: Sequence[Any], notes: Notes) -> list[Any]:
    """Without those that carry no text for the model, such as a provider's search, which are recorded.

    Calls of tools that a client runs by itself, such as local_shell_call, become calls of a function of that name.
    """
    kept = []
    for number, item in enumerate(items):
        kind = item.get("type") if isinstance(item, dict) else None
        from_chat = as_items(item) if isinstance(item, dict) and kind in (None, "message") else None
        if from_chat is not None:
            kept += from_chat
        elif not isinstance(kind, str) or kind in _ITEM_FIELDS:
            kept.append(item)
        elif kind.endswith(_OUTPUT) and item.get("call_id") is not None:
            kept.append({"type": "function_call_output", "call_id": item["call_id"], "output": item.get("output")})
        elif kind.endswith(_CALL) and item.get("call_id") is not None:
            kept.append(_as_function_call(kind.removesuffix(_CALL), item))
        elif _is_media(kind) or kind == "input_text":  # a part that stands alone: the user's
            kept.append({"type": "message", "role": "user", "content": [item]})
        elif kind == "mcp_call":
            kept += _mcp_call(item)
        elif item.get("content"):  # what is said must not be missing, whatever the item is called
            kept.append({"type": "message", "role": item.get("role") or "user", "content": item["content"]})
        else:
            notes.item("input", number).ignore(kind, known=False)
    return kept


def _mcp_call(item: dict[str, Any]) -> list[dict[str, Any]]:
    """A provider called a tool, and this came of it."""
    call_id = item.get("id") or "mcp"
    output = item.get("output") if item.get("error") is None else item["error"]
    return [
        {"type": "function_call", "call_id": call_id, "name": item.get("name"), "arguments": item.get("arguments")},
        {"type": "function_call_output", "call_id": call_id, "output": output},
    ]


def _as_function_call(name: str, item: dict[str, Any]) -> dict[str, Any]:
    arguments: Any = next((item[key] for key in ("action", "operation", "arguments") if key in item), {})
    return {
        "type": "function_call", "call_id": item["call_id"], "name": name,
        "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
    }  # fmt: skip


def _kind(item: dict[str, Any]) -> str:
    """Of an item that does not say its type."""
    if "role" in item:
        return "message"
    if "output" in item:
        return "function_call_output"
    return "item_reference" if item.keys() <= {"id", "type"} and "id" in item else "message"


def _is_media(kind: Any) -> bool:
    return kind in ("input_image", "input_file", "input_audio", "computer_screenshot")


def _is_text(output: Any) -> bool:
    return isinstance(output, str) or (
        isinstance(output, list) and all(isinstance(part, dict) and "type" in part for part in output)
    )
