"""Engines over the fake runner, with a tokenizer of a letter a token."""

import threading
from typing import Any

from deepseek.engine.engine import Engine
from deepseek.engine.engine_config import EngineConfig
from deepseek.engine.outputs import Generation
from fake_runner import FakeRunner, HashSampler

LETTERS = "abcdefghijk"


class Letters:
    """A letter a token."""

    def encode(self, text: str) -> list[int]:
        return [LETTERS.index(letter) for letter in text]

    def stream(self, *, skip_special_tokens: bool = False) -> "LetterStream":
        assert skip_special_tokens
        return LetterStream()


class LetterStream:
    """Token 10 prints nothing until the next token, or the end, comes."""

    held = ""

    def push(self, token: int) -> str:
        if token == 10:
            self.held += "k"
            return ""
        text, self.held = self.held + LETTERS[token], ""
        return text

    def flush(self) -> str:
        return self.held


def make_engine(runner: FakeRunner | None = None, tokenizer: Any = Letters, **settings: Any) -> Engine:
    return Engine(
        runner or FakeRunner(n_blocks=200, max_tokens=64),
        tokenizer and tokenizer(),
        EngineConfig(**settings),
        make_sampler=HashSampler,
    )


def one(result: Generation | list[Generation]) -> Generation:
    assert isinstance(result, Generation)
    return result


def held(**settings: Any) -> tuple[FakeRunner, Engine]:
    """An engine whose runner waits in its first step."""
    runner = FakeRunner(n_blocks=200, max_tokens=300)
    runner.hold = threading.Event()
    return runner, make_engine(runner, **settings)
