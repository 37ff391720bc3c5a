"""OpenAI's chat messages and tools, as chat templates read them.

Templates take a message's content as one text. They differ in what they take a call's arguments for: Qwen 2.5's prints
them with `tojson` and DeepSeek V3's joins them to text, so one needs the object and the other its JSON text.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from deepseek.errors import GenerationError
from deepseek.server.tool_arguments import as_object

ROLES = ("system", "developer", "user", "assistant", "tool")
_FIELDS = {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning", "refusal"}
_JOINS_ARGUMENTS = re.compile(r"\+\s*[\w.]+(?:\[['\"]\w+['\"]\])*(?:\.|\[['\"])arguments(?:['\"]\])?\s*\+")


def for_template(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    *,
    chat_template: str = "",
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """The messages and tools to render, as new objects; tools are None where there are none.

    Content parts of type text become one text, a missing content "", developer becomes system, a refusal the content it
    stood for. Arguments become objects, or JSON text where `chat_template` joins them to text.
    Raises GenerationError naming the field for what the templates cannot show: other roles, kinds of content, fields.
    """
    as_text = _JOINS_ARGUMENTS.search(chat_template) is not None
    if not isinstance(messages, (list, tuple)):
        _refuse("messages", "must be a list of messages")
    read = [_message(message, f"messages[{place}]", as_text) for place, message in enumerate(messages)]
    return read, [_tool(tool, f"tools[{place}]") for place, tool in enumerate(tools or ())] or None


def _message(message: object, where: str, arguments_as_text: bool) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        _refuse(where, "must be an object with role and content")
    given = {key: value for key, value in message.items() if value is not None and value != []}
    for key in given.keys() - _FIELDS:
        _refuse(f"{where}.{key}", "is not supported: leave it out")
    role = given.get("role")
    if role not in ROLES:
        _refuse(f"{where}.role", f"must be one of {', '.join(ROLES)}, not {role!r:.100}")
    content = _content(given.get("content"), f"{where}.content")
    if content is None:
        if role != "assistant":
            _refuse(f"{where}.content", "must be a text or a list of parts")
        content = _text(given.get("refusal", ""), f"{where}.refusal")
    read: dict[str, Any] = {"role": "system" if role == "developer" else role, "content": content}
    for key in ("name", "tool_call_id"):
        if key in given:
            read[key] = _text(given[key], f"{where}.{key}")
    reasoning = given.get("reasoning_content", given.get("reasoning"))
    if reasoning is not None:
        _only(role, "assistant", f"{where}.reasoning_content")
        read["reasoning_content"] = _text(reasoning, f"{where}.reasoning_content")
    if "tool_calls" in given:
        _only(role, "assistant", f"{where}.tool_calls")
        read["tool_calls"] = _calls(given["tool_calls"], f"{where}.tool_calls", arguments_as_text)
    return read


def _content(content: object, where: str) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        _refuse(where, "must be a text or a list of parts")
    return "".join(_part(part, f"{where}[{place}]") for place, part in enumerate(content))


def _part(part: object, where: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or not isinstance(kind, str):
        _refuse(where, "must be an object with a type")
    if kind not in ("text", "refusal"):
        _refuse(f"{where}.type", f"is {kind!r:.100}, which this model cannot read: send text")
    for key in part.keys() - {"type", kind}:
        if part[key] is not None:
            _refuse(f"{where}.{key}", "is not supported: leave it out")
    return _text(part.get(kind), f"{where}.{kind}")


def _calls(calls: object, where: str, arguments_as_text: bool) -> list[dict[str, Any]]:
    if not isinstance(calls, (list, tuple)):
        _refuse(where, "must be a list of tool calls")
    return [_call(call, f"{where}[{place}]", arguments_as_text) for place, call in enumerate(calls)]


def _call(call: object, where: str, arguments_as_text: bool) -> dict[str, Any]:
    kind = call.get("type", "function") if isinstance(call, Mapping) else None
    function = call.get(kind) if isinstance(call, Mapping) and kind in ("function", "custom") else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping):
        _refuse(where, "must be an object with id, type and function")
    name = _text(function.get("name"), f"{where}.{kind}.name")
    if kind == "custom":
        arguments = {"input": _text(function.get("input", ""), f"{where}.custom.input")}
    else:
        arguments = _arguments(function.get("arguments"), f"{where}.function.arguments")
    shown = json.dumps(arguments, ensure_ascii=False) if arguments_as_text else arguments
    read: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": shown}}
    if call.get("id") is not None:
        read["id"] = _text(call["id"], f"{where}.id")
    return read


def _arguments(arguments: object, where: str) -> dict[str, Any]:
    if arguments is None or isinstance(arguments, str):
        return as_object(arguments or "")
    if not isinstance(arguments, Mapping):
        _refuse(where, "must be an object, or the JSON text of one")
    return dict(arguments)


def _tool(tool: object, where: str) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(tool, Mapping) or not isinstance(function, Mapping):
        _refuse(where, "must be an object with type and function")
    if tool.get("type") != "function":
        _refuse(f"{where}.type", f"must be function, not {tool.get('type')!r:.100}")
    _text(function.get("name"), f"{where}.function.name")
    # Whether a tool is strict is for the sampler, not for the model to read.
    shown = {key: value for key, value in function.items() if key != "strict" and value is not None}
    return {"type": "function", "function": shown}


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        _refuse(where, f"must be a text, not {type(value).__name__}")
    return value


def _only(role: object, wanted: str, where: str) -> None:
    if role != wanted:
        _refuse(where, f"must be of a message with role {wanted}")


def _refuse(where: str, what: str) -> NoReturn:
    raise GenerationError(f"{where} {what}")
