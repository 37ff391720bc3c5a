"""Blocks for sequences: reserving them, finding them again by prefix, copying a shared one before it is written."""

from collections.abc import Callable

from deepseek.engine.block_pool import BlockPool, block_key
from deepseek.engine.sequence import Sequence


class KVBlocks:
    """The pool seen from sequences: keeps `block_table`, `n_computed` and `prefix_keys` in step with it.

    forms_differ: prompt tokens and generated ones have different KV, so keys tell them apart.
    copy_block: called with (source, target) before a block that others hold too is written.
    """

    def __init__(
        self,
        *,
        n_blocks: int,
        block_size: int,
        copy_block: Callable[[int, int], None],
        caching: bool = True,
        forms_differ: bool = True,
    ) -> None:
        self.pool = BlockPool(n_blocks)
        self.block_size = block_size
        self._copy_block = copy_block
        self._caching = caching
        self._forms_differ = forms_differ

    def count(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.block_size)

    def missing(self, sequence: Sequence, end: int) -> int:
        """Free blocks that `reserve` to this end takes."""
        return self.count(end) - len(sequence.block_table) + self._must_copy(sequence)

    def reserve(self, sequence: Sequence, end: int) -> bool:
        """Make room to write tokens [n_computed, end). False, and nothing changed, if too few blocks are free."""
        table, pool = sequence.block_table, self.pool
        copy = self._must_copy(sequence)
        wanted = self.count(end) - len(table)
        if wanted <= 0 and not copy:
            return True
        if max(wanted, 0) + copy > pool.n_free:
            return False
        if copy:
            place = sequence.n_computed // self.block_size
            fresh = pool.take()
            self._copy_block(table[place], fresh)
            pool.release(table[place])
            table[place] = fresh
        for _ in range(wanted):
            table.append(pool.take())
        return True

    def room(self, sequence: Sequence) -> int:
        """Up to which token `reserve` can succeed now."""
        return (len(sequence.block_table) + self.pool.n_free - self._must_copy(sequence)) * self.block_size

    def extend_from_cache(self, sequence: Sequence) -> int:
        """Take over cached blocks that continue what is computed; returns how many tokens that saves.

        The last token is never taken over: it must be computed, for its logits.
        """
        size, done = self.block_size, sequence.n_computed
        if not self._caching or done % size or len(sequence.block_table) != done // size:
            return 0
        for place in range(done // size, (len(sequence.token_ids) - 1) // size):
            block = self.pool.find(self.key(sequence, place))
            if block is None:
                break
            self.pool.share(block)
            sequence.block_table.append(block)
            sequence.n_computed += size
        return sequence.n_computed - done

    def publish(self, sequence: Sequence) -> None:
        """Let others find the full blocks computed until now."""
        if not self._caching:
            return
        full = sequence.n_computed // self.block_size
        for place in range(sequence.n_published, full):
            self.pool.publish(sequence.block_table[place], self.key(sequence, place))
        sequence.n_published = full

    def next_key(self, sequence: Sequence) -> bytes | None:
        """Key of the block that the next computed token begins, None in the middle of one or before it can be full."""
        place, rest = divmod(sequence.n_computed, self.block_size)
        if rest or not self._caching or (place + 1) * self.block_size > len(sequence.token_ids):
            return None
        return self.key(sequence, place)

    def keys_of(self, sequence: Sequence, start: int, stop: int) -> list[bytes]:
        """Keys of the blocks that computing tokens [start, stop) makes full."""
        if not self._caching:
            return []
        return [self.key(sequence, place) for place in range(start // self.block_size, stop // self.block_size)]

    def key(self, sequence: Sequence, place: int) -> bytes:
        """Key of full block number `place`."""
        keys, size = sequence.prefix_keys, self.block_size
        while len(keys) <= place:
            start = len(keys) * size
            prompt_form = min(max(sequence.n_prompt - start, 0), size) if self._forms_differ else 0
            parent = keys[-1] if keys else sequence.request.prefix_root
            keys.append(block_key(parent, sequence.token_ids[start : start + size], prompt_form))
        return keys[place]

    def fork(self, source: Sequence, target: Sequence) -> None:
        """`target`, which holds nothing, shares everything that `source` computed."""
        target.block_table = source.block_table[: self.count(source.n_computed)]
        for block in target.block_table:
            self.pool.share(block)
        target.n_computed = source.n_computed
        target.n_published = source.n_published
        target.n_predicted = source.n_predicted
        target.prefix_keys = source.prefix_keys[: source.n_published]

    def release(self, sequence: Sequence) -> None:
        """Give all blocks back; the last first, so that the beginning of a prefix is forgotten last."""
        for block in reversed(sequence.block_table):
            self.pool.release(block)
        sequence.block_table = []
        sequence.n_computed = sequence.n_published = sequence.n_predicted = 0

    def held_prefix(self, sequence: Sequence) -> int:
        """For a sequence that waits: blocks of its prefix that others hold, so that they cost nothing."""
        held = 0
        if self._caching:
            for place in range((len(sequence.token_ids) - 1) // self.block_size):
                block = self.pool.find(self.key(sequence, place))
                if block is None:
                    break
                held += self.pool.is_held(block)
        return held

    def _must_copy(self, sequence: Sequence) -> bool:
        place, rest = divmod(sequence.n_computed, self.block_size)
        return rest > 0 and self.pool.is_shared(sequence.block_table[place])
