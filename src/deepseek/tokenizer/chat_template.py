"""Chat templates: messages in, the model's prompt text out, as Transformers renders it.

`render` is the one entry point. The template runs in `sandbox`, under `TemplateLimits`; whatever goes wrong in it is a
`TokenizerError`, and a template's own `raise_exception` is the subclass `ChatTemplateRefusal`.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from deepseek.errors import TokenizerError
from deepseek.tokenizer.meter import Meter, TemplateLimitError, TemplateLimits, metered, weigh
from deepseek.tokenizer.template_content import Forms, adapted, check_printed, forms_of

if TYPE_CHECKING:
    import jinja2

__all__ = ["TemplateLimitError", "TemplateLimits", "choose", "plain_messages", "render"]

_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_DEPTH = 64
_ASKS_FOR_NO_CONTENT = re.compile(r"content['\"]?\]?\s*(is|==|!=)\s*(not\s+)?none", re.IGNORECASE)
_FOR_TOOLS = ("tool_use", "tool-use")
_CONTINUE = "CONTINUE_FINAL_MESSAGE_TAG "
_REASONING = ("reasoning_content", "thinking", "reasoning")


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    limits: TemplateLimits | None = None,
    check_content: bool = False,
    **variables: Any,
) -> str:
    """The prompt for these messages. The caller's objects are copied as plain data and never changed.

    check_content: hand content over as a string or as parts, whichever the template reads, and refuse a template that
    drops what a user said. `continue_final_message` leaves the last message open, so that the model goes on writing it;
    it excludes `add_generation_prompt`, which a caller then turns off.
    """
    if continue_final_message and add_generation_prompt:
        raise TokenizerError("continue_final_message and add_generation_prompt exclude each other: turn one off")
    limits = limits or TemplateLimits()
    chat = _with_reasoning_names(_without_nulls(plain_messages(messages), template))
    if check_content:
        chat = adapted(chat, _forms(template, limits))
    final = _open_final_message(chat) if continue_final_message else ""
    values = {key: _plain(value, key) for key, value in variables.items()}
    values.update(
        tools=plain_tools(tools), documents=values.get("documents"), add_generation_prompt=add_generation_prompt
    )

    def run(messages: list[dict[str, Any]]) -> str:
        return _run(template, {**values, "messages": messages}, limits)

    text = run(chat)
    if check_content:
        check_printed(text, chat, run)
    return _cut_open(text, final) if continue_final_message else text


def choose(templates: Mapping[str, str], name: str | None, tools: object) -> str:
    """The template to use: the named one, else the one for tools when there are some, else `default`."""
    if name is not None and name in templates:
        return templates[name]
    if name is not None:
        raise TokenizerError(f"no chat template is called {name!r}; this tokenizer has {sorted(templates) or 'none'}")
    if tools is not None and (for_tools := [text for key, text in templates.items() if key in _FOR_TOOLS]):
        return for_tools[0]
    if "default" in templates:
        return templates["default"]
    if templates:
        raise TokenizerError(f"there is no default chat template: name one of {sorted(templates)} as chat_template")
    raise TokenizerError("this tokenizer has no chat template: give one as a text, or use encode() for a base model")


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as plain JSON data, each with a role. Refused otherwise, by position."""
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise TokenizerError("messages must be a list of objects with role and content")
    if not messages:
        raise TokenizerError("messages is empty: a chat has at least one message")
    plain = [_plain_message(message, f"messages[{place}]") for place, message in enumerate(messages)]
    _bounded(plain, "messages")
    return plain


def plain_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[Any] | None:
    if tools is None:
        return None
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise TokenizerError("tools must be a list of JSON schemas")
    for place, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            raise TokenizerError(f"tools[{place}] must be a JSON schema (an object), not {type(tool).__name__}")
    plain: list[Any] = _plain(tools, "tools")
    _bounded(plain, "tools")
    return plain


def _plain_message(message: object, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise TokenizerError(f"{where} must be an object with role and content, not {type(message).__name__}")
    role = message.get("role")
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        raise TokenizerError(f"{where}.role must be a name such as user, assistant, system or tool, not {role!r:.100}")
    content = message.get("content")
    if not (content is None or isinstance(content, (str, list, tuple))):
        raise TokenizerError(f"{where}.content must be a text, a list of parts or null, not {type(content).__name__}")
    for place, part in enumerate(content if isinstance(content, (list, tuple)) else ()):
        if not isinstance(part, (str, Mapping)):
            raise TokenizerError(f"{where}.content[{place}] must be an object with a type, not {type(part).__name__}")
    plain: dict[str, Any] = _plain(message, where)
    return plain


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """A copy made of JSON types only, so that a template never holds an object with methods of its own."""
    if depth > _DEPTH:
        raise TokenizerError(f"{where} is nested deeper than {_DEPTH}")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _encodable(str.__str__(value), where)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {_plain_key(key, where): _plain(item, f"{where}.{key}"[:200], depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, where, depth + 1) for item in value]
    raise TokenizerError(f"{where} holds a {type(value).__name__}: chat templates take JSON data only")


def _plain_key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise TokenizerError(f"{where} has a key that is not a text: {key!r:.100}")
    return _encodable(key, where)


def _encodable(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TokenizerError(f"{where} holds half a surrogate pair, which is not text: decode it correctly") from None
    return text


def _bounded(value: list[Any], where: str) -> None:
    if weigh(value, 4_000_000) > 4_000_000:
        raise TokenizerError(f"{where} is too large for one chat: send less")


def _without_nulls(chat: list[dict[str, Any]], template: str) -> list[dict[str, Any]]:
    """Keys that are null are left out, as in Transformers: a template would print "None".

    Not so the content where the template asks whether it is none: DeepSeek's know a turn of tool calls by that.
    """
    kept = "content" if _ASKS_FOR_NO_CONTENT.search(template) else None
    return [{key: value for key, value in message.items() if value is not None or key == kept} for message in chat]


def _with_reasoning_names(chat: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Templates read a message's reasoning under one of several names; give them all the first one set."""
    for message in chat:
        reasoning = next((message[key] for key in _REASONING if message.get(key) is not None), None)
        if reasoning is not None:
            message.setdefault("thinking", reasoning)
            message["reasoning_content"] = reasoning
    return chat


def _open_final_message(chat: list[dict[str, Any]]) -> str:
    """Append the tag that marks where to cut, and return the text before it."""
    last = chat[-1]
    content = last.get("content")
    if isinstance(content, str):
        last["content"] = content + _CONTINUE
        return content
    for part in reversed(content or []):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            text: str = part["text"]
            part["text"] = text + _CONTINUE
            return text
    raise TokenizerError("continue_final_message needs a last message with text")


def _cut_open(text: str, final: str) -> str:
    if _CONTINUE.strip() not in text or final.strip() not in text:
        raise TokenizerError("continue_final_message: the chat template does not print the last message unchanged")
    place = text.rindex(_CONTINUE.strip())
    kept = text[:place]
    return kept if text[place : place + len(_CONTINUE)] == _CONTINUE else kept.rstrip()


@lru_cache(maxsize=32)
def _forms(template: str, limits: TemplateLimits) -> Forms:
    tried = {"tools": None, "documents": None, "add_generation_prompt": True}
    return forms_of(lambda messages: _run(template, {**tried, "messages": messages}, limits))


def _run(template: str, values: dict[str, Any], limits: TemplateLimits) -> str:
    import jinja2

    compiled = _compiled(template, limits.source_characters)
    printed = 0
    parts: list[str] = []
    with metered(Meter(limits)) as meter:
        try:
            for part in compiled.generate(values):
                printed += len(part)
                if printed > limits.output_characters:
                    raise TemplateLimitError(
                        f"the chat template printed more than {limits.output_characters:,} characters"
                    )
                meter.step()
                parts.append(str(part))
        except TokenizerError:
            raise
        except jinja2.TemplateError as error:
            raise TokenizerError(f"the chat template failed: {error}") from error
        except RecursionError:
            raise TemplateLimitError("the chat template calls itself too deeply") from None
        except Exception as error:
            raise TokenizerError(f"the chat template failed: {type(error).__name__}: {error!s:.500}") from error
    return "".join(parts)


@lru_cache(maxsize=32)
def _compiled(template: str, limit: int) -> "jinja2.Template":
    import jinja2

    from deepseek.tokenizer.sandbox import template_environment

    if len(template) > limit:
        raise TemplateLimitError(f"the chat template has {len(template):,} characters, more than {limit:,}")
    try:
        return template_environment().from_string(template)
    except TokenizerError:
        raise
    except jinja2.TemplateSyntaxError as error:
        raise TokenizerError(f"the chat template does not parse: line {error.lineno}: {error.message}") from error
    except (RecursionError, MemoryError, SyntaxError, jinja2.TemplateError, ValueError, OverflowError) as error:
        raise TokenizerError(f"the chat template does not compile: {type(error).__name__}: {error!s:.200}") from error
