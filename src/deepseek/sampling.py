"""What a request for text may ask for, and where stop strings end it. Shared by both executors; plain Python."""

import math
from dataclasses import dataclass

from deepseek.errors import GenerationError


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How to continue one prompt. Names and meanings as in vLLM.

    max_tokens: at most so many tokens. temperature: 0 takes the likeliest token (greedy). top_k: among the k likeliest;
    0: all. top_p: among the likeliest whose probabilities reach p. min_p: among those with at least min_p times the
    likeliest one's probability. Applied in the order temperature, min_p, top_k, top_p.
    seed: the same seed gives the same text; None: another each time.
    stop: texts that end the answer, not part of it; one alone or a list is taken too. stop_token_ids: tokens that end
    it, beside the model's own end tokens, which ignore_eos ignores.
    Raises GenerationError naming the field.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", _as_tuple(self.stop))
        object.__setattr__(self, "stop_token_ids", _as_tuple(self.stop_token_ids))
        _require(
            _is_int(self.max_tokens) and self.max_tokens > 0, "max_tokens", "a whole number above 0", self.max_tokens
        )
        _require(_in_range(self.temperature, 0, math.inf), "temperature", "0 or above", self.temperature)
        _require(_is_int(self.top_k) and self.top_k >= 0, "top_k", "a whole number, 0 for all", self.top_k)
        _require(_in_range(self.top_p, 0, 1) and self.top_p > 0, "top_p", "above 0 and at most 1", self.top_p)
        _require(_in_range(self.min_p, 0, 1), "min_p", "between 0 and 1", self.min_p)
        seeded = self.seed is None or (_is_int(self.seed) and 0 <= self.seed < 2**63)
        _require(seeded, "seed", "a whole number from 0 to 2**63 - 1 or None", self.seed)
        texts = all(isinstance(text, str) and text for text in self.stop)
        _require(texts, "stop", "texts of at least one character", self.stop)
        _require(all(map(_is_int, self.stop_token_ids)), "stop_token_ids", "token ids", self.stop_token_ids)


class StopScanner:
    """Finds stop strings in text that comes in pieces, also across their borders.

    `push` gives the text that certainly comes before any stop string; what might be the beginning of one is held back.
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        self.found: str | None = None  # the stop string that ended the text
        self._stop = stop
        self._held = ""

    def push(self, piece: str) -> str:
        """Text to show now. Once `found` is set, everything further is dropped."""
        if self.found is not None:
            return ""
        text = self._held + piece
        first = min(((text.find(stop), stop) for stop in self._stop if stop in text), default=None)
        if first is not None:
            self.found, self._held = first[1], ""
            return text[: first[0]]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, when the text has ended without completing a stop string."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)


def _as_tuple(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, list | tuple | set | frozenset) else (value,)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _in_range(value: object, low: float, high: float) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and low <= value <= high  # type: ignore[arg-type, operator]


def _require(holds: bool, field: str, meaning: str, value: object) -> None:
    if not holds:
        raise GenerationError(f"{field} must be {meaning}, not {value!r}")
