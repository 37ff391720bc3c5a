"""Which tokens to compute in the next step. Plain Python over small objects; one thread uses it.

Sequences are served in the order of their keys: priority, then arrival. Running ones hold blocks, waiting ones none.
When blocks run out, the last in that order gives its blocks back and waits; it keeps its tokens and is computed again
later, mostly from the prefix cache. So the first in order always advances, and everybody becomes the first some time.
"""

import time
from bisect import insort
from collections.abc import Iterable

from deepseek.engine.batch import Batch, Chunk
from deepseek.engine.kv_blocks import KVBlocks
from deepseek.engine.pace import Pace
from deepseek.engine.sequence import Request, Sequence
from deepseek.engine.speculation import Speculator


class Scheduler:
    """Queues of sequences. `schedule` gives a batch, `deepseek.engine.advance` takes what came of it.

    max_sequences: that run together. max_tokens: of one step, more than max_sequences. logit_rows: of one step.
    max_decode_steps: in one batch. step_seconds: the length of a step that sequences wait for.
    """

    def __init__(
        self,
        *,
        blocks: KVBlocks,
        pace: Pace,
        max_sequences: int,
        max_tokens: int,
        logit_rows: int,
        max_decode_steps: int = 1,
        step_seconds: float = 0.1,
        speculator: Speculator | None = None,
    ) -> None:
        assert max_tokens > max_sequences
        assert logit_rows >= max_sequences
        self.blocks = blocks
        self.pace = pace
        self.speculator = speculator
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self._max_sequences = max_sequences
        self._max_tokens = max_tokens
        self._logit_rows = logit_rows
        self._max_decode_steps = max_decode_steps
        self._step_seconds = step_seconds

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, request: Request) -> None:
        insort(self.waiting, request.sequences[0], key=_key)

    def add_sample(self, sequence: Sequence) -> None:
        """A sample that holds blocks already; without a seat it gives them back and waits."""
        insort(self.running, sequence, key=_key)
        if len(self.running) > self._max_sequences:
            self._preempt(self.running[-1])

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, in whatever queue or in none, and give its blocks back."""
        for queue in (self.running, self.waiting):
            if sequence in queue:
                queue.remove(sequence)
        self.blocks.release(sequence)

    def remove_request(self, request: Request) -> None:
        """End what is left of a request; between steps."""
        for sequence in request.sequences:
            if sequence.finish_reason is None:
                sequence.finish_reason = "abort"
                drop_drafts(sequence)
                self.remove(sequence)

    def schedule(self) -> Batch:
        """The next step; has at least one chunk when there is work. `advance` or `roll_back` must follow."""
        self._admit()
        decoding = sum(sequence.is_decoding for sequence in self.running)
        proposals = self._proposals(decoding) if self.speculator and decoding else {}
        if decoding == len(self.running) > 0 and not proposals:
            steps = self._steps_at_once()
            if steps > 1:
                return Batch([Chunk(sequence, sequence.n_computed, 1, "last") for sequence in self.running], steps)
        chunks = self._chunks(decoding, proposals)
        return Batch(chunks, hidden=any(chunk.sequence.request.pooling is not None for chunk in chunks))

    def roll_back(self, batch: Batch) -> None:
        """The step did not happen."""
        for chunk in batch.chunks:
            drop_drafts(chunk.sequence)

    def _admit(self) -> None:
        """Let waiting sequences run, in order, while there are seats and blocks for all they have to compute.

        A sequence of better priority takes the place of running ones of worse priority.
        """
        while self.waiting:
            head = self.waiting[0]
            while not self._fits(head):
                if not self.running or self.running[-1].request.priority <= head.request.priority:
                    return
                self._preempt(self.running[-1])
            del self.waiting[0]
            insort(self.running, head, key=_key)
            if not head.request.metrics.first_scheduled_time:
                head.request.metrics.first_scheduled_time = time.monotonic()

    def _fits(self, head: Sequence) -> bool:
        if not self.running:
            return True
        if len(self.running) >= self._max_sequences:
            return False
        blocks = self.blocks
        needed = blocks.count(len(head.token_ids) + 1) - blocks.held_prefix(head)
        promised = sum(max(blocks.missing(sequence, len(sequence.token_ids)), 0) for sequence in self.running)
        return needed + promised + len(self.running) <= blocks.pool.n_free

    def _preempt(self, sequence: Sequence) -> None:
        assert not sequence.n_drafts
        self.running.remove(sequence)
        self.blocks.release(sequence)
        sequence.request.metrics.preemptions += 1
        insort(self.waiting, sequence, key=_key)

    def _proposals(self, decoding: int) -> dict[Sequence, list[int]]:
        """Drafts of the sequences that have any, as far as tokens and rows of the step allow."""
        assert self.speculator is not None
        room = min(self._max_tokens, self._logit_rows) - len(self.running)
        if decoding < len(self.running):
            room //= 2  # prompts want tokens too
        candidates = [
            (sequence, sequence.request.limit - len(sequence.token_ids) - 1)
            for sequence in self.running
            if sequence.is_decoding
        ]
        drafts = self.speculator.propose(candidates, decoding, room)
        return {sequence: some for (sequence, _), some in zip(candidates, drafts, strict=True) if some}

    def _steps_at_once(self) -> int:
        """Decode steps that one batch may take: a power of two; reserves their blocks if it is above one."""
        running, blocks = self.running, self.blocks
        most = min(self._max_decode_steps, self._max_tokens // len(running))
        for sequence in running:
            if most < 2 or not sequence.sampler.is_simple:
                return 1
            most = min(most, sequence.request.limit - len(sequence.token_ids))
        most = min(most, self.pace.steps_within(len(running), self._step_seconds))
        steps = 1 << (most.bit_length() - 1)
        while steps > 1 and not _fit_together(blocks, running, steps):
            steps //= 2
        if steps > 1:
            for sequence in running:
                blocks.reserve(sequence, sequence.n_computed + steps)
        return steps

    def _chunks(self, decoding: int, proposals: dict[Sequence, list[int]]) -> list[Chunk]:
        """One token of every decoding sequence, with its drafts, and the prompts in order as far as time allows."""
        drafts_total = sum(map(len, proposals.values()))
        room = self._max_tokens - decoding - drafts_total
        if decoding:
            timely = self.pace.prompt_room(decoding, self._step_seconds)
            room = min(room, max(timely, self.blocks.block_size))
        rows = self._logit_rows - len(self.running) - drafts_total
        chunks: list[Chunk] = []
        in_flight: set[bytes] = set()
        place = 0
        while place < len(self.running):
            sequence = self.running[place]
            if sequence.is_decoding:
                chunk = self._decode_chunk(sequence, proposals.get(sequence))
            else:
                chunk = self._prompt_chunk(sequence, room, rows, in_flight)
                if chunk is not None:
                    room -= chunk.count
                    rows -= chunk.count - 1 if chunk.logits == "all" else 0
            if chunk is not None:
                chunks.append(chunk)
            place += 1
        return chunks

    def _decode_chunk(self, sequence: Sequence, drafts: list[int] | None) -> Chunk | None:
        start = sequence.n_computed
        if not self._make_room(sequence, start + 1):
            return None
        if drafts:
            count = min(len(drafts), self.blocks.room(sequence) - start - 1)
            if count > 0:
                self.blocks.reserve(sequence, start + 1 + count)
                sequence.token_ids += drafts[:count]
                sequence.n_drafts = count
                return Chunk(sequence, start, 1 + count, "all")
        return Chunk(sequence, start, 1, "last")

    def _prompt_chunk(self, sequence: Sequence, room: int, rows: int, in_flight: set[bytes]) -> Chunk | None:
        """The next part of what is to be computed before the sequence can go on.

        None when there is no room left, when the next block is just being computed for another sequence (whose
        result is then found in the cache), or when the sequence had to give way.
        """
        if room <= 0:
            return None
        blocks, wants_all = self.blocks, sequence.request.wants_prompt_logits(sequence)
        if not (wants_all or sequence.request.wants_all_computed):
            saved = blocks.extend_from_cache(sequence)
            if saved and not sequence.n_generated and not sequence.request.metrics.preemptions:
                sequence.request.metrics.cached_tokens += saved
            if blocks.next_key(sequence) in in_flight:
                return None
        start, end = sequence.n_computed, len(sequence.token_ids)
        if start < sequence.n_prompt:
            end = sequence.n_prompt
        stop = min(end, start + (min(room, rows + 1) if wants_all else room))
        if not self._make_room(sequence, start + 1):
            return None
        stop = min(stop, blocks.room(sequence))
        if stop < end and stop - stop % blocks.block_size > start:
            stop -= stop % blocks.block_size  # whole blocks are found by others
        blocks.reserve(sequence, stop)
        in_flight.update(blocks.keys_of(sequence, start, stop))
        ends = stop == len(sequence.token_ids) and sequence.request.pooling is None
        return Chunk(sequence, start, stop - start, "all" if wants_all else "last" if ends else "none")

    def _make_room(self, sequence: Sequence, end: int) -> bool:
        """Reserve up to token `end`, taking blocks from the last in order. False: the sequence was the last itself."""
        while not self.blocks.reserve(sequence, end):
            victim = self.running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        return True


def drop_drafts(sequence: Sequence) -> list[int]:
    """Take the unverified tokens off the end; returns them."""
    if not sequence.n_drafts:
        return []
    drafts = sequence.token_ids[-sequence.n_drafts :]
    del sequence.token_ids[-sequence.n_drafts :]
    sequence.n_drafts = 0
    return drafts


def _fit_together(blocks: KVBlocks, sequences: Iterable[Sequence], steps: int) -> bool:
    needed = sum(max(blocks.missing(sequence, sequence.n_computed + steps), 0) for sequence in sequences)
    return needed <= blocks.pool.n_free


def _key(sequence: Sequence) -> tuple[int, int, int]:
    return sequence.key
