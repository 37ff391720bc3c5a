"""The KV blocks: who holds which, and which still hold something worth finding again.

A block is free and empty, free and cached (nobody holds it, but its key finds it until it is taken for something else,
the longest unused first), or held by one or more sequences. Only full blocks get a key.
"""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from struct import pack


def root_key(*parts: str) -> bytes:
    """The key before the first block. Give everything that KV depends on beside the tokens, and the tenant's salt."""
    return blake2b(b"".join(pack("<q", len(raw)) + raw for raw in map(str.encode, parts)), digest_size=16).digest()


def block_key(parent: bytes, tokens: Sequence[int], prompt_form: int) -> bytes:
    """The key of a full block after the blocks of `parent`, whose first `prompt_form` tokens are in prompt form."""
    return blake2b(pack(f"<16si{len(tokens)}i", parent, prompt_form, *tokens), digest_size=16).digest()


class BlockPool:
    """Reference counts and keys of `n_blocks` blocks. Holds no KV; plain bookkeeping, constant time a call."""

    def __init__(self, n_blocks: int) -> None:
        self.n_blocks = n_blocks
        self._references = [0] * n_blocks
        self._keys: list[bytes | None] = [None] * n_blocks
        self._block_of: dict[bytes, int] = {}
        self._empty = list(range(n_blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._predicted = [False] * n_blocks

    @property
    def n_free(self) -> int:
        """Blocks that `take` can give."""
        return len(self._empty) + len(self._cached)

    @property
    def n_cached(self) -> int:
        """Free blocks that can still be found."""
        return len(self._cached)

    def take(self) -> int:
        """A block for new KV, held once. There must be a free one."""
        if self._empty:
            block = self._empty.pop()
        else:
            block, _ = self._cached.popitem(last=False)
            self._forget(block)
        self._references[block] = 1
        self._predicted[block] = False
        return block

    def share(self, block: int) -> None:
        """One more holder, of a held or a cached block."""
        if self._references[block] == 0:
            del self._cached[block]
        self._references[block] += 1

    def release(self, block: int) -> None:
        """One holder less."""
        assert self._references[block] > 0, f"block {block} is released more often than held"
        self._references[block] -= 1
        if self._references[block] == 0:
            if self._keys[block] is None:
                self._empty.append(block)
            else:
                self._cached[block] = None

    def is_held(self, block: int) -> bool:
        return self._references[block] > 0

    def is_shared(self, block: int) -> bool:
        return self._references[block] > 1

    def is_predicted(self, block: int) -> bool:
        """Whether `note_predicted` was called since it was taken."""
        return self._predicted[block]

    def note_predicted(self, block: int) -> None:
        """The prediction layers' entries are there for all tokens of this full block (`prediction`)."""
        self._predicted[block] = True

    def publish(self, block: int, key: bytes) -> None:
        """Let `find` find this full block. Where another has the key already, that one stays."""
        if self._keys[block] is None and key not in self._block_of:
            self._keys[block] = key
            self._block_of[key] = block

    def find(self, key: bytes) -> int | None:
        """The block with this key, held or cached. `share` it before anything is taken."""
        return self._block_of.get(key)

    def clear_cache(self) -> None:
        """Forget all keys: nothing computed until now is found again."""
        self._empty.extend(self._cached)
        self._cached.clear()
        self._block_of.clear()
        self._keys = [None] * self.n_blocks

    def _forget(self, block: int) -> None:
        key = self._keys[block]
        assert key is not None
        del self._block_of[key]
        self._keys[block] = None
