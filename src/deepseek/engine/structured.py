"""Answers that follow a JSON schema, a regex, a choice or a grammar: which tokens may come next.

llguidance keeps the parser's state and gives a bit for each token. We add what it leaves to others: special tokens are
never part of an answer, whatever a request's own grammar says; an end token is possible exactly where the answer is
complete; an answer that cannot go on, or costs too much, ends with an error that names the request's field.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deepseek.engine.grammars import LIMITS, grammar_of
from deepseek.errors import GenerationError
from deepseek.kernels.sampling import forbid
from deepseek.sampling import ComposedOutput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepseek.sampling import StructuredOutput

MOST_CACHED = 64
SECONDS_REFUSED = 60.0
"""So long what failed to compile fails at once; then it is tried again, as the machine may only have been busy."""
SECONDS_TO_BEGIN = 1.0
SECONDS_A_TOKEN = 0.02
"""Of processor time; an answer whose grammar takes more holds up everybody else's."""


class Grammars:
    """Compiled grammars over one vocabulary. Safe to share between threads."""

    def __init__(self, tokenizer: Any, vocab_size: int, eos_ids: Sequence[int]) -> None:
        """tokenizer: a `deepseek.tokenizer.Tokenizer`; vocab_size: rows of the model's logits."""
        self._vocabulary = Vocabulary(tokenizer, vocab_size, eos_ids)
        self._compiled: OrderedDict[StructuredOutput, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._compiling = threading.Lock()

    def constraint(self, wanted: "StructuredOutput") -> "Constraint":
        """The state at the beginning of an answer. Raises GenerationError where `wanted` cannot be compiled or met.

        Compiles one at a time: what is not cached may take some seconds, so call it where that holds up nobody.
        """
        matcher = self._copy(wanted)
        if matcher is None:
            with self._compiling:
                matcher = self._copy(wanted)
                if matcher is None:
                    self._keep(wanted, self._outcome(wanted))
                    matcher = self._copy(wanted)
                    assert matcher is not None
        return self._begun(matcher, wanted)

    def _begun(self, matcher: Any, wanted: "StructuredOutput") -> "Constraint":
        special = wanted.special_tokens if isinstance(wanted, ComposedOutput) else ()
        return Constraint(matcher, self._vocabulary, wanted.kind, special)

    def _copy(self, wanted: "StructuredOutput") -> Any:
        """A matcher of its own if this was compiled lately, its error if that failed, else None."""
        with self._lock:
            found = self._compiled.get(wanted)
            if found is None:
                return None
            self._compiled.move_to_end(wanted)
            if not isinstance(found, _Refusal):
                return found.deep_copy()
            if time.monotonic() < found.until:
                raise GenerationError(found.message)
            return None

    def _keep(self, wanted: "StructuredOutput", outcome: Any) -> None:
        with self._lock:
            self._compiled[wanted] = outcome
            while len(self._compiled) > MOST_CACHED:
                self._compiled.popitem(last=False)

    def _outcome(self, wanted: "StructuredOutput") -> Any:
        try:
            return self._compile(wanted)
        except GenerationError as error:
            return _Refusal(str(error), time.monotonic() + SECONDS_REFUSED)

    def _compile(self, wanted: "StructuredOutput") -> Any:
        from llguidance import LLMatcher, LLParserLimits

        for text in wanted.choice or ():
            if not self._vocabulary.can_write(text):
                raise GenerationError(f"structured.choice holds {text!r:.100}, which the model has no tokens to write")
        grammar = grammar_of(wanted)
        matcher = LLMatcher(self._vocabulary.tokens, grammar, log_level=0, limits=LLParserLimits(**LIMITS))
        if matcher.is_error():
            raise GenerationError(f"{wanted.kind} cannot be compiled: {_first_line(matcher.get_error())}")
        self._begun(matcher.deep_copy(), wanted).restrict(np.zeros(self._vocabulary.size, np.float32))
        return matcher


@dataclass(frozen=True, slots=True)
class _Refusal:
    message: str
    until: float


class Constraint:
    """The state of one answer."""

    def __init__(self, matcher: Any, vocabulary: "Vocabulary", field: str, special: Sequence[int] = ()) -> None:
        """field: names the request's field in errors. special: tokens that the grammar may ask for though no text."""
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._text = vocabulary.text | vocabulary.bits_of(special) if special else vocabulary.text
        self._field = field
        self._count = 0
        self._ended = False
        self._seconds = 0.0

    def restrict(self, logits: "NDArray[np.float32]") -> bool:
        """-inf for every token that cannot be next; whether only an end token can be."""
        vocabulary = self._vocabulary
        words = np.zeros_like(vocabulary.text)
        if not self._ended:
            given = np.frombuffer(self._timed(self._matcher.compute_bitmask), np.uint32)
            words[: given.size] = given[: words.size]
            if self._count == 0 and vocabulary.first is not None:
                vocabulary.first.shift(words)
            words &= self._text
        must_end = not words.any()
        if self._ended or self._matcher.is_accepting():
            words |= vocabulary.ends
        elif must_end:
            raise self._impossible()
        forbid(logits, words)
        return must_end

    def observe(self, token: int) -> None:
        """Go on with this token. Raises GenerationError if it was not possible, or is too much to work out."""
        if token in self._vocabulary.eos_ids:
            self._ended = True
            return
        if self._count == 0 and self._vocabulary.first is not None:
            token = self._vocabulary.first.bare.get(token, token)
        if not self._timed(self._matcher.consume_token, token):
            raise GenerationError(f"{self._field} does not allow token {token} at place {self._count} of the answer")
        self._count += 1

    def _timed(self, work: Any, *arguments: Any) -> Any:
        started = time.thread_time()
        result = work(*arguments)
        self._seconds += time.thread_time() - started
        if self._matcher.is_error():
            message = _first_line(self._matcher.get_error())
            if "NoExtension" in message:
                raise self._impossible()
            if "consume_token" not in message:
                raise GenerationError(f"{self._field} failed at place {self._count} of the answer: {message}")
        if self._seconds > SECONDS_TO_BEGIN + SECONDS_A_TOKEN * self._count:
            raise GenerationError(f"{self._field} takes too long to follow: use a simpler one")
        return result

    def _impossible(self) -> GenerationError:
        return GenerationError(f"{self._field} cannot be met: nothing is possible at place {self._count} of the answer")


class Vocabulary:
    """A model's tokens as llguidance sees them: their bytes, and which are text at all."""

    def __init__(self, tokenizer: Any, vocab_size: int, eos_ids: Sequence[int]) -> None:
        from llguidance import LLTokenizer

        if not eos_ids:
            raise GenerationError("structured needs a model with an end token; this one names none")
        self.size = vocab_size
        self.eos_ids = frozenset(eos_ids)
        spelled = [tokenizer.token_bytes(token) for token in range(vocab_size)]
        special = {*self.eos_ids, *(token for token in tokenizer.special_ids if token < vocab_size)}
        special.update(token for token, data in enumerate(spelled) if not data)
        self.text = _bits(set(range(vocab_size)) - special, vocab_size)
        self.ends = _bits(self.eos_ids, vocab_size)
        self.first = FirstSpace(spelled, special) if tokenizer.drops_first_space else None
        self._spelling = _Spelling(tokenizer, spelled, special, min(eos_ids))
        spelling: Any = self._spelling
        self.tokens = LLTokenizer(spelling)

    def bits_of(self, special: Sequence[int]) -> "NDArray[np.uint32]":
        """A bit for each of these tokens that does not end an answer."""
        return _bits({token for token in special if token < self.size} - self.eos_ids, self.size)

    def can_write(self, text: str) -> bool:
        """Whether tokens spell this text; small vocabularies lack some bytes."""
        return b"".join(self._spelling.tokens[token] for token in self._spelling(text)) == text.encode()


class FirstSpace:
    """Where a text loses the space it begins with: the first token `▁word` writes what `word` writes.

    bare: the token without the space, for each that begins with one and has such a twin.
    """

    def __init__(self, spelled: Sequence[bytes], special: set[int]) -> None:
        ids = {data: token for token, data in reversed(list(enumerate(spelled))) if token not in special}
        self.bare = {
            token: ids[data[1:]]
            for token, data in enumerate(spelled)
            if token not in special and data[:1] == b" " and data[1:] in ids
        }
        spaced = [token for token, data in enumerate(spelled) if data[:1] == b" "]
        self._spaced = np.array(spaced, np.int64)
        self._with_twin = np.array(list(self.bare), np.int64)
        self._twins = np.array(list(self.bare.values()), np.int64)

    def shift(self, words: "NDArray[np.uint32]") -> None:
        """Change the bits for the first token from what tokens spell to what they write."""
        flags = np.unpackbits(words.view(np.uint8), bitorder="little")
        possible = flags[self._twins]
        flags[self._spaced] = 0
        flags[self._with_twin] = possible
        words[:] = np.packbits(flags, bitorder="little").view(np.uint32)


class _Spelling:
    """What LLTokenizer asks of a tokenizer: bytes of tokens, and how it writes bytes that are forced."""

    bos_token_id = None
    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Any, spelled: Sequence[bytes], special: set[int], eos_id: int) -> None:
        self.tokens = [data or b"<%d>" % token for token, data in enumerate(spelled)]
        self.special_token_ids = sorted(special)
        self.eos_token_id = eos_id
        self._tokenizer = tokenizer
        self._ids = {data: token for token, data in reversed(list(enumerate(spelled))) if token not in special}
        self._longest = max(map(len, self._ids), default=0)
        self(b"{")  # the tokenizer builds its reader of literal text now, not within somebody's answer

    def __call__(self, text: bytes | str) -> list[int]:
        data = text if isinstance(text, bytes) else text.encode()
        ids: list[int] = self._tokenizer.encode(
            data.decode(errors="replace"), add_special_tokens=False, parse_special=False
        )
        if ids and self._tokenizer.drops_first_space and self.tokens[ids[0]][:1] == b" ":
            ids = [*self._greedily(self.tokens[ids[0]][1:]), *ids[1:]]
        spells = b"".join(self.tokens[token] for token in ids) == data
        return ids if spells else self._greedily(data)

    def _greedily(self, data: bytes) -> list[int]:
        """The longest token at each place; bytes that no token has are left out."""
        ids = []
        while data:
            size = next((size for size in range(min(len(data), self._longest), 0, -1) if data[:size] in self._ids), 0)
            if size:
                ids.append(self._ids[data[:size]])
            data = data[max(size, 1) :]
        return ids


def _bits(ids: Any, vocab_size: int) -> "NDArray[np.uint32]":
    flags = np.zeros(-(-vocab_size // 32) * 32, np.uint8)
    flags[list(ids)] = 1
    return np.packbits(flags, bitorder="little").view(np.uint32)


_ONE_OF = "Enable 'coerce_one_of' option to approximate oneOf with anyOf"


_UNIMPLEMENTED = "Unimplemented keys:"


def _first_line(message: str) -> str:
    line = message.partition("\n")[0][:300].replace(_ONE_OF, "use anyOf")
    return line.replace(_UNIMPLEMENTED, "no answer can be held to these keywords while it is written; leave them out:")
