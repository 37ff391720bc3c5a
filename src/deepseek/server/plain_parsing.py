"""Answers as plain text: what `deepseek.server.parsing` offers, without looking for anything."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolCallPiece:
    index: int
    id: str | None
    name: str | None
    arguments: str


@dataclass(frozen=True, slots=True)
class Piece:
    content: str = ""
    reasoning: str = ""
    tool_call: ToolCallPiece | None = None


class OutputParser:
    def feed(self, text: str) -> list[Piece]:
        return [Piece(content=text)] if text else []

    def finish(self) -> list[Piece]:
        return []


def make_parser(reasoning: str | None, tools: str | None, *, thinking_open: bool = False) -> OutputParser:
    return OutputParser()


def detect(chat_template: str, model_type: str) -> tuple[str | None, str | None]:
    return None, None
