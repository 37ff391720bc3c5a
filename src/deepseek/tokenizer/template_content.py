"""What a chat template makes of a message's content: a string, or a list of parts; and whether it prints it at all.

Templates of models with images iterate over parts and print nothing of a string; others print a string and cannot read
parts. Which is which a trial says: a probe in either form, and whether it comes out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepseek.errors import TokenizerError

Chat = list[dict[str, Any]]
Run = Callable[[Chat], str]

_PROBE = "qzjxkv"
_PRINTED_PARTS = ("'type'", '"type"')  # a list that was printed as such


@dataclass(frozen=True)
class Forms:
    """Which forms of content come out; neither where the template refuses a chat of one message."""

    string: bool
    parts: bool


def forms_of(run: Run) -> Forms:
    """Try a user's message in both forms. run: renders messages."""
    return Forms(string=_comes_out(run, _PROBE), parts=_comes_out(run, [{"type": "text", "text": _PROBE}]))


def _comes_out(run: Run, content: Any) -> bool:
    try:
        text = run([{"role": "user", "content": content}])
    except TokenizerError:
        return False
    return _PROBE in text and not any(mark in text for mark in _PRINTED_PARTS)


def adapted(chat: Chat, forms: Forms) -> Chat:
    """The messages in a form that the template reads, where the given one is not."""
    if forms.parts and not forms.string:
        return as_parts(chat)
    if forms.string and not forms.parts:
        return as_strings(chat)
    return chat


def as_parts(chat: Chat) -> Chat:
    return [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        if isinstance(message.get("content"), str)
        else message
        for message in chat
    ]


def as_strings(chat: Chat) -> Chat:
    """Text parts joined by line ends, as vLLM and llama.cpp do; content with other parts stays a list."""
    return [
        {**message, "content": "\n".join(map(_text_of, content))}
        if isinstance(content := message.get("content"), list) and all(_text_of(part) is not None for part in content)
        else message
        for message in chat
    ]


def _text_of(part: Any) -> Any:
    """The text of a text part, else None."""
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, dict) and part.get("type", "text") in ("text", "input_text") else None
    return text if isinstance(text, str) else None


def check_printed(text: str, chat: Chat, run: Run) -> None:
    """Raise TokenizerError when a user's text, or all system texts, were dropped: the answer would miss them.

    text: what the template printed. run: renders other messages the same way, for templates that rewrite what they
    print (as JSON, or without a switch such as /no_think).
    """
    if not _dropped(text, chat):
        return
    probing = _with_probes(chat)
    dropped = _dropped(run(probing).lower(), probing)
    if dropped:
        place = dropped[0]
        role = chat[place]["role"]
        raise TokenizerError(
            f"messages[{place}].content: the chat template drops this {role} message; give a chat template that "
            "prints it, or put the text into a message of another role"
        )


def _dropped(text: str, chat: Chat) -> list[int]:
    """Places of users' messages that are not in the text, and of system messages where none of them is."""
    missing: list[int] = []
    systems: dict[int, bool] = {}
    for place, message in enumerate(chat):
        if message["role"] not in ("user", "system"):
            continue
        given = [part.strip() for part in _texts(message.get("content")) if part.strip()]
        printed = all(part in text for part in given)
        if message["role"] == "system" and given:
            systems[place] = printed
        elif not printed:
            missing.append(place)
    if systems and not any(systems.values()):
        missing += systems
    return sorted(missing)


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield from (text for part in content if (text := _text_of(part)) is not None)


def _with_probes(chat: Sequence[Mapping[str, Any]]) -> Chat:
    """The same chat with a short word for every text."""
    numbers = iter(range(1 << 30))

    def probe(content: Any) -> Any:
        if isinstance(content, str):
            return f"{_PROBE}{next(numbers)}x" if content.strip() else content
        if isinstance(content, list):
            return [
                part if _text_of(part) is None else probe(part) if isinstance(part, str)
                else {**part, "text": probe(part["text"])}
                for part in content
            ]  # fmt: skip
        return content

    return [
        {**message, "content": probe(message.get("content"))}
        if message["role"] in ("user", "system")
        else dict(message)
        for message in chat
    ]
