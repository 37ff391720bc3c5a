"""What a parser gives back."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolCallPiece:
    """A part of tool call number `index` of an answer, from 0.

    id, name: in a call's first piece, else None. arguments: JSON text; a call's pieces together are one JSON object.
    """

    index: int
    id: str | None
    name: str | None
    arguments: str


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of an answer: exactly one of the three is set."""

    content: str = ""
    reasoning: str = ""
    tool_call: ToolCallPiece | None = None


class Malformed(Exception):
    """What looked like a tool call is none. Never leaves this package: the text becomes content."""
