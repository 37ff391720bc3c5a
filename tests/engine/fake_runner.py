"""A runner whose logits are a hash of the whole visible KV history, so that any wrong block or stale KV shows as text.

`expected` says what a request must come to, from the same hash, without any scheduler or blocks.
"""

import dataclasses
import struct
import threading
from dataclasses import dataclass
from hashlib import blake2b
from types import SimpleNamespace
from typing import Any

import numpy as np

from deepseek.engine.batch import LOGIT_ROWS, Batch, Chunk, StepCancelled, StepOutput

VOCAB = 11


@dataclass
class Chosen:
    token: int
    logprob: float | None = None
    top: list[tuple[int, float]] = dataclasses.field(default_factory=list)


class HashSampler:
    """Token number i depends on seed, sample, i and the logits; greedy without a seed."""

    def __init__(self, params: Any, vocab_size: int, prompt_ids: Any, eos_ids: Any, index: int = 0) -> None:
        self.is_simple = params.logprobs is None and params.min_p == 0
        self._key = None if params.seed is None else (params.seed, index)
        self._wants_logprobs = params.logprobs is not None
        self._drawn = 0

    def choose(self, logits: np.ndarray) -> Chosen:
        scores = logits.copy()
        if self._key is not None:
            scores += hashed_row((*self._key, self._drawn))
        self._drawn += 1
        logits[:] = np.nan  # whoever reads this row again is wrong
        token = int(scores.argmax())
        return Chosen(token, float(scores[token]) if self._wants_logprobs else None)

    def observe(self, token: int) -> None:
        self._drawn += 1


def hashed_row(values: tuple[int, ...]) -> np.ndarray:
    digest = blake2b(struct.pack(f"<{len(values)}q", *values), digest_size=VOCAB).digest()
    return np.frombuffer(digest, np.uint8).astype(np.float32) / 256


def row_after(history: list[tuple[int, bool]]) -> np.ndarray:
    return hashed_row(tuple(2 * token + form for token, form in history))


def expected(
    prompt: list[int], params: Any, limit: int, index: int = 0, ends: frozenset[int] = frozenset()
) -> list[int]:
    """The tokens that a sample must come to."""
    sampler = HashSampler(params, VOCAB, prompt, (), index)
    history = [(token, True) for token in prompt]
    answer: list[int] = []
    while True:
        token = sampler.choose(row_after(history)).token
        answer.append(token)
        if token in ends or len(prompt) + len(answer) >= limit:
            return answer
        history.append((token, False))


@dataclass(frozen=True)
class Entry:
    """Of the prediction layers. text: the tokens it has seen states of; read: those after, one a layer."""

    text: tuple[int, ...]
    read: tuple[int, ...]


class FakeRunner:
    """Checks every promise that `Chunk` and `Batch` make, and keeps KV as (token, whether in prompt form)."""

    def __init__(
        self,
        *,
        n_blocks: int = 64,
        block_size: int = 4,
        max_tokens: int = 32,
        max_sequences: int = 8,
        eos_token_ids: tuple[int, ...] = (),
        context: int = 10_000,
        prediction_layers: int = 0,
    ) -> None:
        self.config: Any = SimpleNamespace(
            vocab_size=VOCAB, max_position_embeddings=context, eos_token_ids=eos_token_ids, mla=object()
        )
        self.n_blocks, self.block_size = n_blocks, block_size
        self.max_tokens_per_step, self.max_sequences = max_tokens, max_sequences
        self.nbytes_a_block = self.weight_bytes = 0
        self.kv: list[list[tuple[int, bool] | None]] = [[None] * block_size for _ in range(n_blocks)]
        self.batches: list[tuple[int, ...]] = []  # tokens computed by each chunk of each run
        self.steps: list[int] = []
        self.copies = 0
        self.fail_next: BaseException | None = None
        self.hold: threading.Event | None = None  # run waits until it is set, or cancelled
        self.hold_from = 0  # from this run on
        self.in_run = threading.Event()
        self.closed = False
        self.prediction_layers = prediction_layers
        self.entries: list[list[Entry | None]] = [[None] * block_size for _ in range(n_blocks)]
        self.predicted = 0  # entries
        self.routing: Any = None  # a RoutingRecord, for tests that want experts
        self.pool: Any = None  # set by tests that check that nothing shared is written
        self._cancelled = threading.Event()

    def run(self, batch: Batch) -> StepOutput:
        self._check(batch)
        self._wait()
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            self._spoil(batch)
            raise error
        self.batches.append(tuple(chunk.count for chunk in batch.chunks))
        self.steps.append(batch.steps)
        self._route(batch)
        if batch.steps > 1:
            return StepOutput(np.zeros((0, VOCAB), np.float32), [self._go_on(c, batch.steps) for c in batch.chunks])
        rows = []
        for chunk in batch.chunks:
            wanted = {"none": 0, "last": 1, "all": chunk.count}[chunk.logits]
            for position in range(chunk.start, chunk.start + chunk.count):
                self._write(chunk.sequence, position)
                if position >= chunk.start + chunk.count - wanted:
                    rows.append(row_after(self._history(chunk.sequence, position + 1)))
        hidden = [
            [chunk.sequence.token_ids[position], position, 1.0]
            for chunk in batch.chunks
            for position in range(chunk.start, chunk.start + chunk.count)
        ]
        logits = np.array(rows, np.float32).reshape(-1, VOCAB)
        return StepOutput(logits, hidden=np.array(hidden, np.float32) if batch.hidden else None)

    def copy_block(self, source: int, target: int) -> None:
        self.copies += 1
        self.kv[target] = list(self.kv[source])
        self.entries[target] = list(self.entries[source])

    def predict(self, chunks: list[Chunk]) -> list[list[int]]:
        """Checks every promise of `Runner.predict`; every second guess is right."""
        assert chunks
        assert sum(chunk.count for chunk in chunks) <= self.max_tokens_per_step
        written: set[int] = set()
        drafts = []
        for chunk in chunks:
            sequence, end, depth = chunk.sequence, chunk.start + chunk.count, self.prediction_layers
            ids, size = sequence.token_ids, self.block_size
            assert chunk.count > 0
            assert sequence.is_decoding
            assert not sequence.n_drafts
            assert end == len(ids) - 1 if chunk.logits == "last" else end <= len(ids) - depth
            blocks = set(sequence.block_table[chunk.start // size : -(-end // size)])
            assert written.isdisjoint(blocks)
            written |= blocks
            if chunk.logits == "last":
                assert self.pool is None or not self.pool.is_shared(sequence.block_table[(end - 1) // size])
            for position in range(chunk.start):
                entry = self._entry(sequence, position)
                assert entry is not None
                assert entry.text == tuple(ids[: position + 1])
                assert position % size >= size - depth or entry.read == tuple(ids[position + 1 :][:depth])
            request = sequence.request
            answer = expected(request.prompt_ids, request.params, len(ids) + depth, sequence.index)
            guesses = answer[sequence.n_generated :][:depth] if chunk.logits == "last" else []
            guesses = [(token + (len(ids) + place) % 2) % VOCAB for place, token in enumerate(guesses)]
            drafts.append(guesses)
            ids = ids + guesses
            for position in range(chunk.start, end):
                entry = Entry(tuple(ids[: position + 1]), tuple(ids[position + 1 :][:depth]))
                self.entries[sequence.block_table[position // size]][position % size] = entry
            self.predicted += chunk.count
        return drafts

    def _entry(self, sequence: Any, position: int) -> "Entry | None":
        return self.entries[sequence.block_table[position // self.block_size]][position % self.block_size]

    def cancel(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        self.closed = True

    def _wait(self) -> None:
        self.in_run.set()
        self._cancelled.clear()
        held = self.hold is not None and len(self.batches) >= self.hold_from
        while held and self.hold is not None and not self.hold.wait(0.001):
            if self._cancelled.is_set():
                raise StepCancelled
        self.in_run.clear()

    def _go_on(self, chunk: Any, steps: int) -> list[int]:
        """Several tokens, sampled here; as in compiled code, the sequence's own sampler does not move."""
        sequence, tokens = chunk.sequence, []
        sampler = HashSampler(sequence.request.params, VOCAB, (), (), sequence.index)
        sampler._drawn = sequence.n_generated
        history = self._history(sequence, chunk.start)
        newest = sequence.token_ids[chunk.start]
        for position in range(chunk.start, chunk.start + steps):
            self.kv[sequence.block_table[position // self.block_size]][position % self.block_size] = (newest, False)
            history.append((newest, False))
            assert history == self._history(sequence, position + 1)
            newest = sampler.choose(row_after(history)).token
            tokens.append(newest)
        return tokens

    def _route(self, batch: Batch) -> None:
        """Experts by position, rows in the order of the chunks, one round after another."""
        if self.routing is None or not self.routing.is_on:
            return
        rounds = [
            chunk.start + token + again
            for again in range(batch.steps)
            for chunk in batch.chunks
            for token in range(chunk.count)
        ]
        for row, position in enumerate(rounds):
            self.routing.ids[:, row] = [[layer, position] for layer in self.routing.layers]
            self.routing.weights[:, row] = position / 64
            self.routing.totals[:] += 1

    def _write(self, sequence: Any, position: int) -> None:
        form = position < sequence.n_prompt
        block = sequence.block_table[position // self.block_size]
        assert self.pool is None or not self.pool.is_shared(block), "a block that others hold is written"
        self.kv[block][position % self.block_size] = (sequence.token_ids[position], form)

    def _history(self, sequence: Any, end: int) -> list[tuple[int, bool]]:
        places = (divmod(position, self.block_size) for position in range(end))
        return [self.kv[sequence.block_table[block]][slot] or (-1, False) for block, slot in places]

    def _spoil(self, batch: Batch) -> None:
        """A step that failed may have written anything into its own places."""
        for chunk in batch.chunks:
            for position in range(chunk.start, chunk.start + chunk.count):
                block = chunk.sequence.block_table[position // self.block_size]
                self.kv[block][position % self.block_size] = (-7, False)

    def _check(self, batch: Batch) -> None:
        assert batch.chunks
        sequences = [chunk.sequence for chunk in batch.chunks]
        assert len(set(map(id, sequences))) == len(sequences) <= self.max_sequences
        assert sum(chunk.count for chunk in batch.chunks) <= self.max_tokens_per_step
        rows = sum({"none": 0, "last": 1, "all": chunk.count}[chunk.logits] for chunk in batch.chunks)
        assert rows <= max(self.max_sequences, LOGIT_ROWS)
        for chunk in batch.chunks:
            sequence, end = chunk.sequence, chunk.start + chunk.count
            assert chunk.count > 0
            assert chunk.start == sequence.n_computed
            assert end <= len(sequence.token_ids)
            assert not chunk.start < sequence.n_prompt < end
            last = end - 1 + batch.steps
            assert last <= len(sequence.block_table) * self.block_size
            assert last < sequence.request.limit
            if batch.steps > 1:
                assert not batch.hidden
                assert (chunk.count, chunk.logits) == (1, "last")
                assert sequence.sampler.is_simple
                assert chunk.start >= sequence.n_prompt
