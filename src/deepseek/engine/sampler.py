"""The next token of one sequence: what the request changes in the logits, the choice, and its log-probability.

Choices are counted: the i-th depends on the seed, the sample's index, i, the tokens before and the logits, so neither
batching nor preemption nor speculation changes it. The choice itself is compiled (`deepseek.kernels.sampling`).
"""

import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from deepseek.errors import GenerationError
from deepseek.kernels.sampling import NOT_A_NUMBER, forbid, rank_row, sample_row
from deepseek.kernels.selection import scratch_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepseek.engine.structured import Constraint
    from deepseek.sampling import SamplingParams

BadWords = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen token; logprob and top (the likeliest tokens, best first, with theirs) where the request asks."""

    token: int
    logprob: float | None = None
    top: list[tuple[int, float]] = field(default_factory=list)


class SequenceSampler:
    """Chooses the tokens of sample `index` of a request.

    bad_words: the ids of params.bad_words, see `bad_word_ids`; constraint: of params.structured. An engine makes
    both with its tokenizer. Raises GenerationError where params do not fit the vocabulary.
    """

    def __init__(
        self,
        params: "SamplingParams",
        vocab_size: int,
        prompt_ids: Sequence[int],
        eos_ids: Sequence[int],
        index: int = 0,
        *,
        bad_words: BadWords = (),
        constraint: "Constraint | None" = None,
    ) -> None:
        _check(params, vocab_size, bad_words, constraint)
        self.params = params
        self.index = index
        self.seed: int = secrets.randbits(63) if params.seed is None else params.seed
        self._vocab_size = vocab_size
        self._output: list[int] = []
        self._constraint = constraint
        self._penalties = _Penalties(params, prompt_ids) if _penalises(params) else None
        self._ends = np.array(sorted({*eos_ids, *params.stop_token_ids}), np.int64)
        self._bias_ids = np.array(list(params.logit_bias or ()), np.int64)
        self._biases = np.array(list((params.logit_bias or {}).values()), np.float32)
        self._allowed = None if params.allowed_token_ids is None else id_bits(params.allowed_token_ids, vocab_size)
        self._bad_tokens = np.array([word[0] for word in bad_words if len(word) == 1], np.int64)
        self._bad_sequences = [(list(word[:-1]), word[-1]) for word in bad_words if len(word) > 1]
        self._draws_plainly = (
            params.logprobs is None and params.typical_p == 1 and self._penalties is None and not params.logit_bias
            and self._allowed is None and not bad_words and not params.logits_processors and constraint is None
        )  # fmt: skip

    @property
    def draw_number(self) -> int:
        """How many tokens were chosen, here or elsewhere: the number of the next draw."""
        return len(self._output)

    @property
    def is_simple(self) -> bool:
        """Whether the next token needs only temperature, top_k, top_p, min_p and the draw's numbers."""
        return self._draws_plainly and len(self._output) >= self.params.min_tokens

    def choose(self, logits: Any) -> Choice:
        """The next token from float32 (vocabulary,), which it may overwrite; takes note of it.

        Raises GenerationError where no token is possible, or the logits hold NaN or +inf.
        """
        params = self.params
        ranked = None if params.logprobs is None else _Ranked(logits, params.logprobs, keep=not self.is_simple)
        if not self.is_simple:
            logits = self._adjusted(logits)
        token = sample_row(
            logits, float(params.temperature), params.top_k, float(params.top_p), float(params.min_p),
            float(params.typical_p), self.seed, self.index, len(self._output), _scratch(logits.size),
        )  # fmt: skip
        if token < 0:
            raise self._nothing_to_choose(token)
        self.observe(token)
        return Choice(token) if ranked is None else Choice(token, ranked.logprob(token), ranked.top)

    def observe(self, token: int) -> None:
        """Take note of a token that was chosen elsewhere."""
        if self._penalties is not None:
            self._penalties.add(token)
        if self._constraint is not None:
            self._constraint.observe(token)
        self._output.append(token)

    def _adjusted(self, logits: Any) -> Any:
        """The logits after everything but temperature and filters. What is impossible comes last, so that it stays."""
        if self._bias_ids.size:
            logits[self._bias_ids] += self._biases
        if self._penalties is not None:
            self._penalties.apply(logits)
        for number, process in enumerate(self.params.logits_processors):
            logits = _processed(logits, process(list(self._output), logits), number)
        if self._allowed is not None:
            forbid(logits, self._allowed)
        logits[self._bad_tokens] = -np.inf
        for before, last in self._bad_sequences:
            if self._output[-len(before) :] == before:
                logits[last] = -np.inf
        must_end = self._constraint is not None and self._constraint.restrict(logits)
        if len(self._output) < self.params.min_tokens and not must_end:
            logits[self._ends] = -np.inf
        return logits

    def _nothing_to_choose(self, status: int) -> GenerationError:
        place = len(self._output)
        causes = [name for name in ("logits_processors", "allowed_token_ids", "bad_words", "structured", "min_tokens")
                  if getattr(self.params, name)]  # fmt: skip
        if status == NOT_A_NUMBER:
            cause = "; a function in logits_processors may have made it" if "logits_processors" in causes else ""
            return GenerationError(f"the logits of token {place} of the answer hold NaN or infinity{cause}")
        return GenerationError(
            f"no token is possible at place {place} of the answer: together, {', '.join(causes) or 'the logits'} "
            "forbid all; loosen one"
        )


class Samplers:
    """Makes the samplers of an engine's requests, and keeps what they share: compiled grammars."""

    def __init__(self, tokenizer: Any = None) -> None:
        """tokenizer: a `deepseek.tokenizer.Tokenizer`; without one, bad_words and structured are refused."""
        self._tokenizer = tokenizer
        self._grammars: Any = None
        self._lock = threading.Lock()

    def __call__(
        self, params: "SamplingParams", vocab_size: int, prompt_ids: Sequence[int], eos_ids: Sequence[int], index: int
    ) -> SequenceSampler:
        """Compiles params.structured if it was not lately: up to some seconds for a large one."""
        words: BadWords = ()
        constraint = None
        if params.bad_words and self._tokenizer is not None:
            words = bad_word_ids(self._tokenizer, params.bad_words)
        if params.structured is not None and self._tokenizer is not None:
            constraint = self._grammars_for(vocab_size, eos_ids).constraint(params.structured)
        return SequenceSampler(
            params, vocab_size, prompt_ids, eos_ids, index, bad_words=words, constraint=constraint
        )  # fmt: skip

    def _grammars_for(self, vocab_size: int, eos_ids: Sequence[int]) -> Any:
        from deepseek.engine.structured import Grammars

        with self._lock:
            if self._grammars is None:
                self._grammars = Grammars(self._tokenizer, vocab_size, eos_ids)
            return self._grammars


def bad_word_ids(tokenizer: Any, words: Sequence[str]) -> BadWords:
    """The token sequences that write each word, at the beginning of a text and after a space."""
    found: dict[tuple[int, ...], None] = {}
    for word in words:
        bare = tuple(tokenizer.encode(word.lstrip(), add_special_tokens=False, parse_special=False))
        spaced = tuple(tokenizer.encode(" " + word.lstrip(), add_special_tokens=False, parse_special=False))
        found.update({ids: None for ids in (bare, spaced) if ids})
    return tuple(found)


def token_logprobs(logits: Any, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """The log-probability of `token` in float32 (vocabulary,), and the `top` likeliest tokens with theirs."""
    ranked = _Ranked(logits, top, keep=False)
    return ranked.logprob(token), ranked.top


def prompt_logprobs(
    logits: Any, token_ids: Sequence[int], top: int
) -> list[tuple[float, list[tuple[int, float]]]]:  # fmt: skip
    """`token_logprobs` row by row: row i of float32 (rows, vocabulary) is what the model expected of token_ids[i]."""
    return [token_logprobs(row, token, top) for row, token in zip(logits, token_ids, strict=True)]


def id_bits(ids: Sequence[int], vocab_size: int) -> "NDArray[np.uint32]":
    """A bit for each id of the vocabulary, as `forbid` takes them."""
    flags = np.zeros(-(-vocab_size // 32) * 32, np.uint8)
    flags[np.asarray(ids, np.int64)] = 1
    return np.packbits(flags, bitorder="little").view(np.uint32)


class _Ranked:
    """The likeliest tokens of a row and what log-probabilities need. keep: the row is about to be overwritten."""

    def __init__(self, logits: Any, count: int, *, keep: bool) -> None:
        ids = np.zeros(count, np.int32)
        found, log_total = rank_row(logits, count, ids, _scratch(logits.size))
        self._log_total = float(log_total)
        if found < 0:
            raise GenerationError("the model's logits hold NaN or infinity: its weights may be damaged")
        self._logits = logits.copy() if keep else logits
        best = ids[:found][np.argsort(-logits[ids[:found]], kind="stable")]
        self.top = [(int(token), self.logprob(token)) for token in best]

    def logprob(self, token: int) -> float:
        return float(self._logits[token]) - self._log_total


class _Penalties:
    """How often each token was seen, and what that costs it."""

    def __init__(self, params: "SamplingParams", prompt_ids: Sequence[int]) -> None:
        self._repetition = np.float32(params.repetition_penalty)
        self._frequency = np.float32(params.frequency_penalty)
        self._presence = np.float32(params.presence_penalty)
        seen = np.unique(np.asarray(prompt_ids, np.int64)) if params.repetition_penalty != 1 else np.empty(0, np.int64)
        self._place = {int(token): place for place, token in enumerate(seen)}
        self._ids = np.concatenate((seen, np.zeros(64, np.int64)))
        self._counts = np.zeros(self._ids.size, np.float32)  # in the answer

    def add(self, token: int) -> None:
        place = self._place.setdefault(token, len(self._place))
        if place == self._ids.size:
            self._ids = np.concatenate((self._ids, np.zeros_like(self._ids)))
            self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
        self._ids[place] = token
        self._counts[place] += 1

    def apply(self, logits: Any) -> None:
        ids, counts = self._ids[: len(self._place)], self._counts[: len(self._place)]
        values = logits[ids]
        values = np.where(values > 0, values / self._repetition, values * self._repetition)
        logits[ids] = values - self._frequency * counts - self._presence * (counts > 0)


def _penalises(params: "SamplingParams") -> bool:
    return (params.repetition_penalty, params.frequency_penalty, params.presence_penalty) != (1, 0, 0)


def _processed(logits: Any, result: Any, number: int) -> Any:
    """What a processor made of the logits: the same array, or another that is checked."""
    if result is None or result is logits:
        return logits
    changed = np.array(result, np.float32)
    if changed.shape != logits.shape:
        raise GenerationError(
            f"logits_processors[{number}] must return None or an array of shape {logits.shape}, not {changed.shape}"
        )
    return changed


def _check(params: "SamplingParams", vocab_size: int, bad_words: BadWords, constraint: "Constraint | None") -> None:
    for name in ("logit_bias", "allowed_token_ids", "stop_token_ids"):
        beyond = [token for token in getattr(params, name) or () if token >= vocab_size]
        if beyond:
            raise GenerationError(f"{name} names token {beyond[0]}, but the model's ids end at {vocab_size - 1}")
    if params.bad_words and not bad_words:
        raise GenerationError("bad_words need an engine with a tokenizer; without one use logit_bias")
    if params.structured is not None and constraint is None:
        raise GenerationError("structured needs an engine with a tokenizer")


class _Memory(threading.local):
    """Working memory for the kernels, one a thread: engines may sample at the same time."""

    array = np.empty(0)


_memory = _Memory()


def _scratch(vocab_size: int) -> "NDArray[np.float64]":
    if _memory.array.size < scratch_size(vocab_size):
        _memory.array = np.empty(scratch_size(vocab_size))
    return _memory.array
