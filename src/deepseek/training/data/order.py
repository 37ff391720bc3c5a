"""Which sequence comes when, as closed forms: any place of an endless order is found without walking to it.

Two questions are answered. Of which source is the k-th sequence, so that shares are met at every moment and not only
on average (`Apportionment`)? And which sequence of a source is its n-th, so that an epoch reads each once in an order
that looks random (`shuffled`)?
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

_WORD = (1 << 64) - 1
_ROUNDS = 4


@dataclass(frozen=True)
class _Node:
    """Sources `first` to `last` - 1, split at `middle`; weights are whole numbers."""

    first: int
    middle: int
    last: int
    left_weight: int
    weight: int

    def left_of(self, count: int) -> int:
        """How many of the node's first `count` places go left: their share, rounded to the nearest."""
        return (2 * count * self.left_weight + self.weight) // (2 * self.weight)


class Apportionment:
    """An endless sequence of sources in which every source has its share of every beginning, to within a few places.

    A binary tree over the sources splits the places, at each node by error diffusion: of the first n places that reach
    a node, the rounded share goes left. The error of a source is below one place a level (half of one in each, less
    where its share is small). Shares are taken as the decimal fractions they are written as, so there is no drift.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        exact = {name: Fraction(str(share)) for name, share in sorted(shares.items()) if share}
        scale = lcm(*(share.denominator for share in exact.values()))
        self.names = tuple(exact)
        self._weights = [int(share * scale) for share in exact.values()]
        self._nodes: dict[tuple[int, int], _Node] = {}
        self._grow(0, len(self.names))

    def _grow(self, first: int, last: int) -> None:
        if last - first < 2:
            return
        middle = (first + last) // 2
        left, whole = sum(self._weights[first:middle]), sum(self._weights[first:last])
        self._nodes[first, last] = _Node(first, middle, last, left, whole)
        self._grow(first, middle)
        self._grow(middle, last)

    def at(self, place: int) -> tuple[str, int]:
        """The source at `place` (from 0), and how many earlier places have the same one."""
        first, last = 0, len(self.names)
        while last - first > 1:
            node = self._nodes[first, last]
            left = node.left_of(place)
            if node.left_of(place + 1) > left:
                last, place = node.middle, left
            else:
                first, place = node.middle, place - left
        return self.names[first], place

    def count(self, name: str, places: int) -> int:
        """How many of the first `places` are of `name`; 0 if it has no share."""
        if name not in self.names:
            return 0
        index, first, last = self.names.index(name), 0, len(self.names)
        while last - first > 1:
            node = self._nodes[first, last]
            left = node.left_of(places)
            if index < node.middle:
                last, places = node.middle, left
            else:
                first, places = node.middle, places - left
        return places


def shuffled(index: int, count: int, key: int) -> int:
    """Where `index` (below `count`) goes in the permutation of `count` things that `key` names.

    A Feistel network over the next power of four, walked until it lands below `count`: four steps on average at most,
    and no table, however many things there are.
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for turn in range(_ROUNDS):
            left, right = right, left ^ (_mixed(key + turn * 0x9E3779B97F4A7C15 + right) & mask)
        index = left << half | right
        if index < count:
            return index


def _mixed(value: int) -> int:
    """The finaliser of SplitMix64: every bit of the result depends on every bit of `value`."""
    value &= _WORD
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _WORD
    return value ^ value >> 31


def key_of(parts: Sequence[object]) -> int:
    """64 bits that depend on every part and on nothing else (Python's own `hash` differs from process to process)."""
    return int.from_bytes(hashlib.blake2b(repr(tuple(parts)).encode(), digest_size=8).digest(), "little")
