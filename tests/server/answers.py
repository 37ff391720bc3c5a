"""Drives a parser over a text cut in some way, and sums up what comes out."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from deepseek.server.chat import Parser
from deepseek.server.parsing import OutputParser, Piece, make_parser


@dataclass
class Answer:
    content: str = ""
    reasoning: str = ""
    calls: list[list[str]] = field(default_factory=list)
    """id, name, arguments"""

    def add(self, piece: Piece) -> None:
        assert sum((bool(piece.content), bool(piece.reasoning), piece.tool_call is not None)) == 1
        self.content += piece.content
        self.reasoning += piece.reasoning
        if call := piece.tool_call:
            assert call.index in (len(self.calls), len(self.calls) - 1)
            if call.index == len(self.calls):
                assert call.id is not None
                assert call.name
                self.calls.append([call.id, call.name, ""])
            else:
                assert call.id is None
                assert call.name is None
            self.calls[call.index][2] += call.arguments


def counted_parser(reasoning: str | None, tools: str | None, **options: Any) -> OutputParser:
    """Its call ids are "call 0", "call 1" ..."""
    numbers = itertools.count()
    return make_parser(reasoning, tools, new_id=lambda: f"call {next(numbers)}", **options)


def answer(parser: Parser, parts: Iterable[str]) -> Answer:
    total = Answer()
    for part in parts:
        for piece in parser.feed(part):
            total.add(piece)
    for piece in parser.finish():
        total.add(piece)
    return total


def cut(text: str, places: Iterable[int]) -> list[str]:
    """The parts of a text between these places."""
    edges = [0, *sorted(places), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]
