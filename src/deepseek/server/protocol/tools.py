"""What the APIs share of tools: which are offered to the model, and which one it must call."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from deepseek.server.protocol.tolerance import Notes, RequestModel

MAX_TOOLS = 1024
TOOL_NAME = r"^[^\s<>\"'{}｜]{1,256}$"
"""What the parsers read back (`parsing.call_format.NAME`): a call by another name would be taken for text."""
CUSTOM_PARAMETERS: dict[str, Any] = {
    "type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"],
    "additionalProperties": False,
}  # fmt: skip
"""Of the function that stands for a custom tool, whose input is one text."""
_ALLOWED = "allowed_tools"


class FunctionName(RequestModel):
    name: str


class NamedToolChoice(RequestModel):
    """OpenAI's `{"type": "function", "function": {"name"}}`; the same for a custom tool."""

    adapted: ClassVar = {"custom": "function", "name": "function.name"}

    type: str = Field(pattern="^(function|custom)$")
    function: FunctionName

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        custom, name = values.pop("custom", None), values.pop("name", None)
        if "function" not in values and (custom or name):
            values["function"] = custom or {"name": name}

    @property
    def name(self) -> str:
        return self.function.name


def offered_tools(tools: Sequence[Any], notes: Notes, *, taken: Sequence[str]) -> list[Any]:
    """Without those that a provider would carry out itself, which are recorded: nobody here would run them."""
    kept = []
    for tool in tools:
        kind = tool.get("type", taken[0]) if isinstance(tool, Mapping) else taken[0]
        if isinstance(kind, str) and kind not in taken and kind is not None:
            notes.ignore(f"tools[].{kind}", known=False)
        else:
            kept.append(tool)
    return kept


def adapt_tool_choice(values: dict[str, Any], notes: Notes) -> None:
    """Mistral's any, a choice as an object that says only auto, none or required, and OpenAI's allowed_tools."""
    choice = values.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") in ("auto", "none", "any", "required"):
        choice = choice["type"]
    if isinstance(choice, dict) and choice.get("type") == _ALLOWED:
        inner = choice.get(_ALLOWED)
        allowed = inner if isinstance(inner, dict) else choice
        named = allowed.get("tools")
        names = {_name(tool) for tool in named} if isinstance(named, list) else set()
        if isinstance(values.get("tools"), list):
            values["tools"] = [tool for tool in values["tools"] if _name(tool) in names]
        choice = allowed.get("mode", "auto")
    if isinstance(choice, dict) and choice.get("type") not in ("function", "custom", None):
        notes.refuse("tool_choice", f"names a tool of type {choice['type']!r:.100}, which this server cannot carry out")
    values["tool_choice"] = "required" if choice == "any" else choice


def _name(tool: Any) -> str | None:
    if not isinstance(tool, dict):
        return None
    inner = tool.get("function") or tool.get("custom") or tool
    name = inner.get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else None
