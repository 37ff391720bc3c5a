"""Documents that are there twice, exactly or nearly.

Exact: equal after folding case and blanks. Near: their sets of shingles (runs of words) overlap by `similarity`
(Jaccard). Candidates come from MinHash with bands (Broder 1997; Leskovec, Rajaraman and Ullman, chapter 3), with one
permutation for all bins and the empty ones filled by optimal densification (Shrivastava 2017), so a document is hashed
once and not a hundred times. Every candidate is then compared exactly: a band that agrees by chance drops nothing.
Memory is linear in the number of documents: BANDS numbers each.
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deepseek.progress import Report, silent

BANDS, ROWS = 24, 5
"""A pair of similarity s becomes a candidate with probability 1 - (1 - s^5)^24: 0.9999 at 0.8, 0.53 at 0.5."""

Words = NDArray[np.uint64]
_BINS = BANDS * ROWS
_EMPTY = np.uint64(1 << 32)
_NOTHING, _WORD, _SINGLE = 0, 1, 2


def digest(text: str) -> tuple[int, int]:
    """128 bits that equal texts share, whatever their case and blanks; the first 64 also choose what is held out."""
    folded = " ".join(text.casefold().split()).encode("utf-8", "surrogatepass")
    value = hashlib.blake2b(folded, digest_size=16).digest()
    return int.from_bytes(value[:8], "little"), int.from_bytes(value[8:], "little")


def shingles(text: str, words: int) -> Words:
    """The distinct hashes of all runs of `words` words, sorted. A Chinese or Japanese character is a word.

    A text of fewer words is one shingle; a text without any has none.
    """
    hashes = _word_hashes(text)
    if not hashes.size:
        return hashes
    words = min(words, hashes.size)
    runs = np.zeros(hashes.size - words + 1, np.uint64)
    for place in range(words):
        runs = runs * np.uint64(0x9E3779B97F4A7C15) + hashes[place : place + runs.size]
    return np.unique(_mixed(runs))


def _word_hashes(text: str) -> Words:
    """One number a word, in order: a polynomial in its characters."""
    codes = np.frombuffer(text.casefold().encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _kinds()[codes]
    inside = kinds != _NOTHING
    before = np.concatenate(([False], inside[:-1] & (kinds[:-1] != _SINGLE)))
    starts = np.flatnonzero(inside & (~before | (kinds == _SINGLE)))
    if not starts.size:
        return np.empty(0, np.uint64)
    places = np.arange(codes.size) - np.repeat(
        np.concatenate(([0], starts)), np.diff(np.concatenate(([0], starts, [codes.size])))
    )
    terms = (codes.astype(np.uint64) + np.uint64(1)) * _powers()[places % _powers().size]
    terms[~inside] = 0
    return _mixed(np.add.reduceat(terms, starts))


@lru_cache(maxsize=1)
def _kinds() -> NDArray[np.uint8]:
    """By code point: no part of a word, part of one, or a word by itself."""
    kinds = np.fromiter((chr(code).isalnum() for code in range(0x110000)), np.uint8, 0x110000)
    for first, last in ((0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)):
        kinds[first : last + 1] *= _SINGLE
    return kinds


@lru_cache(maxsize=1)
def _powers() -> Words:
    return np.cumprod(np.full(64, 0x2545F4914F6CDD1D, np.uint64), dtype=np.uint64)


def _mixed(values: Words) -> Words:
    """The finaliser of SplitMix64, on arrays: wraps around, as it should."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)


def bands(hashes: Words) -> Words:
    """BANDS numbers; two documents are candidates when one of them is equal. All 0 for a document without shingles."""
    if not hashes.size:
        return np.zeros(BANDS, np.uint64)
    least = np.full(_BINS, _EMPTY)
    low, high = hashes & np.uint64(0xFFFFFFFF), hashes >> np.uint64(32)
    np.minimum.at(least, (high * np.uint64(_BINS) >> np.uint64(32)).astype(np.intp), low)
    table = _densified(least).reshape(BANDS, ROWS)
    value = np.arange(1, BANDS + 1, dtype=np.uint64)
    for row in range(ROWS):
        value = _mixed(value * np.uint64(0x9E3779B97F4A7C15) + table[:, row])
    return value


def _densified(least: Words) -> Words:
    """Empty bins take the value of a full one, chosen by the bin alone so that equal documents choose alike.

    A bin asks the bins of its column of `_choices` in turn. With a single bin full, one in two hundred thousand finds
    none among them and stays empty, as it does in an equal document.
    """
    empty = np.flatnonzero(least == _EMPTY)
    if not empty.size:
        return least
    filled = least.copy()
    for choices in _choices():
        offered = least[choices[:, empty]]
        first = (offered != _EMPTY).argmax(axis=0)
        filled[empty] = offered[first, np.arange(empty.size)]
        empty = empty[filled[empty] == _EMPTY]
        if not empty.size:
            break
    return filled


@lru_cache(maxsize=1)
def _choices() -> NDArray[np.intp]:
    """(rounds, attempts, bins): which bin an empty one asks at each attempt, in rounds because few need the later."""
    attempts, bins = np.indices((12 * _BINS, _BINS), dtype=np.uint64)
    chosen = _mixed(bins * np.uint64(0x10001) + attempts + np.uint64(1)) % np.uint64(_BINS)
    return chosen.astype(np.intp).reshape(-1, 24, _BINS)


def similarity(left: Words, right: Words) -> float:
    """Jaccard of two sorted sets of distinct hashes."""
    if not left.size or not right.size:
        return 0.0
    common = np.intersect1d(left, right, assume_unique=True).size
    return common / (left.size + right.size - common)


class Groups:
    """Disjoint sets of documents, by union and find."""

    def __init__(self, count: int) -> None:
        self.parent = np.arange(count)

    def root(self, index: int) -> int:
        while (above := int(self.parent[index])) != index:
            self.parent[index] = index = int(self.parent[above])
        return index

    def join(self, left: int, right: int) -> None:
        """The smaller root becomes the root of both."""
        left, right = sorted((self.root(left), self.root(right)))
        self.parent[right] = left

    def roots(self) -> NDArray[np.intp]:
        return np.fromiter((self.root(index) for index in range(self.parent.size)), np.intp, self.parent.size)


def join_near(
    groups: Groups,
    table: Words,
    members: NDArray[np.intp],
    shingles_of: Callable[[int], Words],
    least: float,
    report: Report = silent,
) -> None:
    """Join the documents `members` of which some chain of pairs is similar by `least` or more.

    table: `bands` of every document, (documents, BANDS). shingles_of: of a document, for the exact comparison.
    """
    unlike: set[tuple[int, int]] = set()
    cached = lru_cache(maxsize=256)(shingles_of)
    members = members[table[members].any(axis=1)]
    for band in range(BANDS):
        for left, right in _candidates(table[members, band]):
            pair = int(members[left]), int(members[right])
            if pair in unlike or groups.root(pair[0]) == groups.root(pair[1]):
                continue
            if similarity(cached(pair[0]), cached(pair[1])) >= least:
                groups.join(*pair)
            else:
                unlike.add(pair)
        report("comparing documents", band + 1, BANDS, "bands")


def _candidates(values: Words) -> Iterator[tuple[int, int]]:
    """Pairs of places with equal values: each with the first of its run and with the one before it.

    Not all pairs of a run: that would be quadratic, and the other bands offer the rest.
    """
    order = np.argsort(values, kind="stable")
    same = np.concatenate(([False], values[order][1:] == values[order][:-1]))
    first = 0
    for place in map(int, np.flatnonzero(same)):
        if not same[place - 1]:
            first = place - 1
        yield int(order[first]), int(order[place])
        if place - 1 != first:
            yield int(order[place - 1]), int(order[place])
