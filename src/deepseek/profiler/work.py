"""What is measured: pieces of work that every side does in the same way, on the same token ids."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np

from deepseek.errors import DeepseekError

Kind = Literal["prompt", "decode", "together"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One row of the table.

    prompt: `context` tokens through the model, up to the logits of the last.
    decode: `count` tokens, one at a time and always the likeliest, after `context` tokens that are not timed.
    together: `requests` prompts of `context` tokens each at once, then `count` tokens for each.
    """

    kind: Kind
    context: int
    count: int = 0
    requests: int = 1

    @property
    def tokens(self) -> int:
        """What "tokens a second" counts."""
        return self.context if self.kind == "prompt" else self.count * self.requests

    @property
    def key(self) -> str:
        """How a user names it: prompt-512, decode-64, together-16."""
        return f"{self.kind}-{self.requests if self.kind == 'together' else self.context}"

    @property
    def name(self) -> str:
        if self.kind == "prompt":
            return f"prompt of {self.context:,}"
        if self.kind == "decode":
            return f"decode, context {self.context:,}"
        return f"{self.requests} together, {self.context} in, {self.count} out"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(**values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """seconds: of the timed part, which made or read `tokens`. decode_seconds: of "together" after its prompts."""

    seconds: float
    tokens: int
    decode_seconds: float | None = None

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


class Side(Protocol):
    """A program under measurement, loaded with one model. Between calls it keeps no processor busy."""

    def tune(self, work: Work) -> dict[str, Any]:
        """Choose the settings that this work runs best with and keep them for it; returns them, for the record."""
        ...

    def run(self, work: Work) -> Timing: ...

    def losses(self, window: list[int]) -> list[float]:
        """-log p of every token of `window` but the first, each after all before it."""
        ...

    def facts(self) -> dict[str, Any]:
        """Versions and settings, for the record."""
        ...


def prompt_ids(length: int, vocab_size: int, seed: int = 0) -> list[int]:
    """Ids drawn evenly: no side can gain from repeated text, and experts are chosen as widely as they can be."""
    ids: list[int] = np.random.default_rng(seed).integers(0, vocab_size, length).tolist()
    return ids


def chosen_work(keys: Sequence[str], *, quick: bool = False, longest: int | None = None) -> list[Work]:
    """The standard work of these keys, all without keys. Raises DeepseekError naming those that exist."""
    known = {work.key: work for work in standard_work(quick=quick, longest=longest)}
    if unknown := sorted(set(keys) - known.keys()):
        raise DeepseekError(f"unknown row {unknown[0]!r}; this model has {', '.join(known)}")
    return [work for key, work in known.items() if not keys or key in keys]


def standard_work(*, quick: bool = False, longest: int | None = None) -> Iterator[Work]:
    """The rows of the table. quick: fewer and shorter. longest: leave out what needs a longer context than this."""
    rows = [
        *(Work(kind="prompt", context=length) for length in ((512,) if quick else (128, 512, 2000))),
        *(Work(kind="decode", context=at, count=64) for at in ((64,) if quick else (64, 500, 2000))),
        *(Work(kind="together", context=128, count=128, requests=n) for n in ((4,) if quick else (4, 16))),
    ]
    return (work for work in rows if longest is None or work.context + work.count <= longest)
