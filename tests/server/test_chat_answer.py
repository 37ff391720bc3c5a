"""What a chat's answer says and counts does not depend on how many tokens a step happens to hold."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from deepseek.server.chat import ChatAnswer, Said
from deepseek.server.forced_calls import CallsParser
from deepseek.server.generation import Delta
from deepseek.server.parsing import make_parser

TOKENS = ["Let ", "me ", "see.", "</", "think>", "\n\n", "It ", "is ", "<tool", "_call>\n", '{"name": "f", "arg',
          'uments": {}}\n</tool_call>', ""]  # fmt: skip
N_REASONING = 3


class Scripted:
    """An answer of TOKENS, so many in a step."""

    def __init__(self, size: int, tokens: list[str]) -> None:
        self._size = size
        self._tokens = tokens

    async def steps(self) -> AsyncGenerator[list[Delta], None]:
        for start in range(0, len(self._tokens), self._size):
            texts = self._tokens[start : start + self._size]
            ended = start + self._size >= len(self._tokens)
            delta = Delta(0, list(range(len(texts))), len(texts), "".join(texts), texts)
            delta.finish_reason = "stop" if ended else None
            yield [delta]


def told(size: int, tokens: list[str] = TOKENS, n_before: int = 6) -> tuple[Any, int | None]:
    async def read() -> tuple[list[Said], int | None]:
        parser = make_parser("qwen3", "hermes", thinking_open=True, new_id=lambda: "c0")
        answer = ChatAnswer(Scripted(size, tokens), [parser], reasons=True, one_call=False)  # type: ignore[arg-type]
        return [said async for step in answer.steps() for said in step], answer.reasoning_tokens

    steps, reasoning_tokens = asyncio.run(read())
    assert sum(said.n_before for said in steps) == n_before
    calls = [call for said in steps for call in said.tool_calls]
    text, reasoning = ("".join(getattr(said, name) for said in steps) for name in ("content", "reasoning"))
    for said in steps:
        assert said.content == "".join(piece.content for piece in said.pieces)
        assert said.reasoning == "".join(piece.reasoning for piece in said.pieces)
    return (text, reasoning, calls, steps[-1].finish_reason), reasoning_tokens


@pytest.mark.parametrize("size", range(2, len(TOKENS) + 1))
def test_steps_change_nothing(size: int) -> None:
    singly = told(1)
    assert singly[1] == N_REASONING
    assert singly[0][:2] == ("It is ", "Let me see.")
    assert singly[0][3] == "tool_calls"
    assert told(size) == singly


@pytest.mark.parametrize("size", [1, 2, 4])
def test_reasoning_that_never_ends_is_counted_to_its_last_token(size: int) -> None:
    assert told(size, ["One ", "two", " <", "/th"], 4)[1] == 4


def test_neighbours_of_a_kind_are_one_piece() -> None:
    async def pieces() -> list[str]:
        parser = make_parser("qwen3", "hermes", thinking_open=True)
        scripted: Any = Scripted(len(TOKENS), TOKENS)
        answer = ChatAnswer(scripted, [parser], reasons=True, one_call=False)
        (said,) = [said async for step in answer.steps() for said in step]
        return [piece.content or piece.reasoning or "call" for piece in said.pieces]

    assert asyncio.run(pieces()) == ["Let me see.", "It is ", "call"]


def test_parts_of_one_call_in_a_step_are_one_part() -> None:
    """As OpenAI sends them: some clients (instructor's partial answers) read the first part of a chunk only."""

    async def parts(size: int) -> list[list[tuple[int, str | None, str]]]:
        tokens = ['[{"name":"f","arguments":{"', "a", '":', "1", '}},{"name":"f","arguments":{"', "b", '":', "2}}]"]
        ids = iter(["c0", "c1"])
        scripted: Any = Scripted(size, tokens)
        answer = ChatAnswer(scripted, [CallsParser(lambda: next(ids))], reasons=False, one_call=False)
        steps = [said.tool_calls async for step in answer.steps() for said in step]
        return [[(call.index, call.id, call.arguments) for call in calls] for calls in steps]

    assert asyncio.run(parts(8)) == [[(0, "c0", '{"a":1}'), (1, "c1", '{"b":2}')]]
