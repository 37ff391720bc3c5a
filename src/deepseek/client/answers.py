"""What a client gives back. An answer and a label are texts, with what else is known as attributes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ToolCall:
    """arguments: JSON text. In a stream, a part of call `index`; id and name come with its first part, "" after it."""

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens. cached_tokens: of the prompt, found in the server's prefix cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What a stream adds: text, reasoning, parts of tool calls. index: which of `n` answers.

    finish_reason: with an answer's last event. usage: in an event of its own, where stream_options asked for it.
    """

    index: int = 0
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Answer(str):
    """The text of an answer. reasoning: what the model thought before; others: the further answers where `n` > 1.

    raw: the server's own structure, with whatever is not named here (log-probabilities, routed experts).
    """

    __slots__ = ("finish_reason", "others", "raw", "reasoning", "tool_calls", "usage")

    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str | None
    usage: Usage | None
    others: tuple["Answer", ...]
    raw: Mapping[str, Any]

    def __new__(
        cls,
        text: str,
        *,
        reasoning: str = "",
        tool_calls: Iterable[ToolCall] = (),
        finish_reason: str | None = None,
        usage: Usage | None = None,
        others: Iterable["Answer"] = (),
        raw: Mapping[str, Any] | None = None,
    ) -> "Answer":
        answer = super().__new__(cls, text)
        answer.reasoning = reasoning
        answer.tool_calls = tuple(tool_calls)
        answer.finish_reason = finish_reason
        answer.usage = usage
        answer.others = tuple(others)
        answer.raw = raw or {}
        return answer

    @classmethod
    def of(cls, events: Iterable[Event]) -> "Answer":
        """The first answer of a stream, summed up."""
        text, reasoning, finish_reason, usage = [], [], None, None
        calls: dict[int, ToolCall] = {}
        for event in events:
            usage = event.usage or usage
            if event.index:
                continue
            text.append(event.text)
            reasoning.append(event.reasoning)
            finish_reason = event.finish_reason or finish_reason
            for part in event.tool_calls:
                call = calls.get(part.index, ToolCall(part.index, "", "", ""))
                arguments = call.arguments + part.arguments
                calls[part.index] = ToolCall(part.index, call.id or part.id, call.name or part.name, arguments)
        return cls(
            "".join(text),
            reasoning="".join(reasoning),
            tool_calls=calls.values(),
            finish_reason=finish_reason,
            usage=usage,
        )


class Label(str):
    """The likeliest label. scores: every label's probability among the labels; empty where none were given."""

    __slots__ = ("scores",)

    scores: Mapping[str, float]

    def __new__(cls, label: str, scores: Mapping[str, float] | None = None) -> "Label":
        self = super().__new__(cls, label)
        self.scores = scores or {}
        return self
