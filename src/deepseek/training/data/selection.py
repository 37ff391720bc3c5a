"""Which documents are trained on, which are held out, which are dropped as duplicates, over all sources at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from deepseek.progress import Report, silent
from deepseek.training.data import duplicates
from deepseek.training.data.documents import DocumentStore


class Fate(IntEnum):
    """What becomes of a document."""

    TRAIN = 0
    HELD_OUT = 1
    EXACT = 2  # equal to one that is kept
    NEAR = 3  # nearly so


@dataclass(frozen=True)
class Selection:
    """`fates[s][d]` is the Fate of document d of source s, as uint8."""

    fates: tuple[NDArray[np.uint8], ...]

    def documents(self, source: int, fate: Fate) -> NDArray[np.intp]:
        return np.flatnonzero(self.fates[source] == fate)


def chosen(digests: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    """Whether each document is held out: by its own hash alone, so that nothing added later changes it."""
    return np.asarray(digests[:, 0] < np.uint64(min(share * 2.0**64, 2.0**64 - 2048)))


def select(
    stores: Sequence[DocumentStore],
    held_out: Sequence[float],
    *,
    similarity: float,
    shingle_words: int,
    report: Report = silent,
) -> Selection:
    """One document of each group of duplicates stays: a held-out one if there is any, else the first.

    So whatever the hash holds out is never trained on, nor is anything like it, in whichever source it comes again.
    """
    counts = [len(store) for store in stores]
    offsets = np.concatenate(([0], np.cumsum(counts)))
    digests = np.concatenate([store.digests for store in stores])
    out = np.concatenate([chosen(store.digests, share) for store, share in zip(stores, held_out, strict=True)])
    order = np.argsort(~out, kind="stable")  # by how much a document has the right to stay
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)

    first = _first_of_equals(digests[order])
    exact = first != np.arange(order.size)
    groups = duplicates.Groups(order.size)
    if similarity < 1:

        def shingles_of(place: int) -> duplicates.Words:
            document = int(order[place])
            source = int(np.searchsorted(offsets, document, "right")) - 1
            return duplicates.shingles(stores[source].text(document - int(offsets[source])), shingle_words)

        bands = np.concatenate([store.bands for store in stores])[order]
        duplicates.join_near(groups, bands, np.flatnonzero(~exact), shingles_of, similarity, report)
    near = groups.roots() != np.arange(order.size)

    fates = np.where(out[order], Fate.HELD_OUT, Fate.TRAIN).astype(np.uint8)
    fates[near] = Fate.NEAR
    fates[exact] = Fate.EXACT
    return Selection(tuple(np.split(fates[rank], offsets[1:-1])))


def _first_of_equals(digests: NDArray[np.uint64]) -> NDArray[np.intp]:
    """For each row the place of the first row that equals it."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equals stay in order
    ordered = digests[order]
    new = np.concatenate(([True], (ordered[1:] != ordered[:-1]).any(axis=1))) if order.size else np.empty(0, bool)
    starts = np.maximum.accumulate(np.where(new, np.arange(order.size), 0))
    first = np.empty_like(order)
    first[order] = order[starts]
    return first
