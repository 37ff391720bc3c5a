"""Drafting by the checkpoint's own prediction layers (multi-token prediction, V3 section 2.2).

Each layer guesses one token further ahead. A layer has an entry for every token, in the KV blocks of the sequence. Its
last entries have read guesses, so they are computed again once the tokens are certain; and entries that were left out,
of the prompt or of a time without guesses, are made up for before the next guess. All this changes no token: what
the layers guess is verified, and what they write nobody else reads.
"""

import time

from deepseek.engine.batch import Chunk, Runner, StepCancelled
from deepseek.engine.kv_blocks import KVBlocks
from deepseek.engine.pace import Pace
from deepseek.engine.sequence import Sequence


class PredictionLayers:
    """Implements `speculation.Drafter`. step_seconds: about so long at most a step makes up for missing entries."""

    def __init__(self, runner: Runner, blocks: KVBlocks, *, step_seconds: float = 0.1) -> None:
        self._runner = runner
        self._blocks = blocks
        self._depth = runner.prediction_layers
        self._pace = Pace()
        self._step_seconds = step_seconds

    def promise(self, sequence: Sequence, limit: int) -> int:
        return min(limit, self._depth)

    def seconds(self, sequences: int) -> float:
        return self._pace.step_seconds(sequences)

    def draft(self, wanted: list[tuple[Sequence, int]]) -> list[list[int]]:
        """None for a sequence whose entries before are not all there yet, and none if the step is cancelled."""
        chunks = self._chunks([sequence for sequence, _ in wanted])
        if not chunks:
            return [[] for _ in wanted]
        begun = time.perf_counter()
        try:
            drafts = self._runner.predict(chunks)
        except StepCancelled:
            return [[] for _ in wanted]
        regular = sum(chunk.count <= self._depth for chunk in chunks)
        made_up = sum(chunk.count for chunk in chunks if chunk.count > self._depth)
        self._pace.observe(regular, made_up, time.perf_counter() - begun)
        found = {}
        for chunk, some in zip(chunks, drafts, strict=True):
            found[chunk.sequence] = some
            self._note(chunk)
        return [found.get(sequence, [])[:count] for sequence, count in wanted]

    def _chunks(self, sequences: list[Sequence]) -> list[Chunk]:
        """What to compute: never a block for two sequences, nor the last entry of one in a block that others hold.

        Those with the least to make up for come first.
        """
        size, pool = self._blocks.block_size, self._blocks.pool
        extra = max(self._pace.prompt_room(len(sequences), self._step_seconds), size)
        room = min(self._runner.max_tokens_per_step, self._depth * len(sequences) + extra)
        for sequence in sequences:
            self._skip_complete(sequence)
        chunks: list[Chunk] = []
        written: set[int] = set()
        for sequence in sorted(sequences, key=lambda one: one.n_computed - one.n_predicted):
            start, stop = sequence.n_predicted, sequence.n_computed
            ends = stop - start <= room
            if not ends:
                stop = min(start + room, self._certain(sequence))
            blocks = sequence.block_table[start // size : -(-stop // size)]
            if stop <= start or not written.isdisjoint(blocks) or (ends and pool.is_shared(blocks[-1])):
                continue
            room -= stop - start
            written.update(blocks)
            chunks.append(Chunk(sequence, start, stop - start, "last" if ends else "none"))
        return chunks

    def _certain(self, sequence: Sequence) -> int:
        """Entries, from the first on, that read no guess in any layer."""
        return max(len(sequence.token_ids) - self._depth, 0)

    def _skip_complete(self, sequence: Sequence) -> None:
        """Entries that others have computed, in blocks shared with them, count as this sequence's.

        The last of a block have read the others' next tokens, which may differ: that makes guesses a little worse.
        """
        size, table = self._blocks.block_size, sequence.block_table
        place, rest = divmod(sequence.n_predicted, size)
        while not rest and (place + 1) * size <= min(sequence.n_computed - 1, self._certain(sequence)):
            if not self._blocks.pool.is_predicted(table[place]):
                return
            place += 1
            sequence.n_predicted = place * size

    def _note(self, chunk: Chunk) -> None:
        """A chunk was computed."""
        size, sequence = self._blocks.block_size, chunk.sequence
        sequence.n_predicted = min(chunk.start + chunk.count, self._certain(sequence))
        for place in range(chunk.start // size, sequence.n_predicted // size):
            self._blocks.pool.note_predicted(sequence.block_table[place])
