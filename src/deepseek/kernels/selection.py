"""Parts of one row of logits in their order, without sorting it.

The order: logits falling, lower ids first among equals. A row is surveyed once: its largest logit, and that of each
block of 64. With these, `likeliest` finds the k largest and `gather` those above a bound, passing over most blocks.
`reach` finds, among gathered candidates, the one at which a weight is reached, narrowing it down with histograms.

Rows may hold -inf (forbidden tokens), but neither NaN nor +inf. Working memory is the caller's, see `scratch_size`.
"""

from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numba.extending import register_jitable

from deepseek.kernels import compile_cache as compile_cache
from deepseek.kernels.exponential import BLOCK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ids = NDArray[np.int32]
    Row = NDArray[np.float32]

LOWEST = -3.4028234663852886e38
"""The smallest finite float32."""
_SAME = 1e-290
"""Scores no further apart count as equal; those of distinct float32 always are."""
_BINS = 1024
_FEW = 48
_MAGNITUDE = np.int32(0x7FFFFFFF)
_INFINITE = np.int32(0x7F800000)
_MINUS_INFINITE = np.int32(~0x7F800000)
_LARGEST = np.int32(2**31 - 1)
_SMALLEST = np.int32(-(2**31))


@register_jitable
def scratch_size(vocabulary: int) -> int:
    """How many float64 of working memory a row of this size needs."""
    return 3 * vocabulary + 2 * (vocabulary // BLOCK + 1) + BLOCK + _BINS


@njit(nogil=True, error_model="numpy")
def parts(scratch: "Floats", vocabulary: int) -> "tuple[Floats, Floats, Ids, Ids, Ids, Floats, Floats, Floats]":
    """The working memory: candidates' scores, weights and ids; positions; block tops and sums; a block; bins."""
    n, blocks = vocabulary, vocabulary // BLOCK + 1
    integers = scratch[2 * n : 3 * n].view(np.int32)
    tops = scratch[3 * n : 3 * n + blocks].view(np.int32)
    rest = scratch[3 * n + blocks :]
    sums, block, bins = rest[:blocks], rest[blocks : blocks + BLOCK], rest[blocks + BLOCK : blocks + BLOCK + _BINS]
    return scratch[:n], scratch[n : 2 * n], integers[:n], integers[n:], tops, sums, block, bins


@njit(nogil=True, error_model="numpy")
def _value(key: int) -> float:
    """The float32 of an ordered key, see `survey`."""
    return np.float64(np.int32(key ^ ((key >> 31) & 0x7FFFFFFF)).view(np.float32))


@njit(nogil=True, error_model="numpy")
def survey(row: "Row", tops: "Ids") -> float:
    """The largest logit, and of each block into `tops`, as integer keys in the order of floats (they vectorise).

    NaN: the row holds NaN or +inf. -inf: it holds nothing else.
    """
    keys = row.view(np.int32)
    n = row.size
    largest, smallest = _SMALLEST, _LARGEST
    for b in range(n // BLOCK):
        high, low = _SMALLEST, _LARGEST
        for j in range(BLOCK):
            key = keys[b * BLOCK + j]
            key = np.int32(key ^ ((key >> np.int32(31)) & _MAGNITUDE))
            high = max(high, key)
            low = min(low, key)
        tops[b] = high
        largest, smallest = max(largest, high), min(smallest, low)
    if n % BLOCK:
        high = _SMALLEST
        for i in range(n - n % BLOCK, n):
            key = np.int32(keys[i] ^ ((keys[i] >> np.int32(31)) & _MAGNITUDE))
            high, smallest = max(high, key), min(smallest, key)
        tops[n // BLOCK] = high
        largest = max(largest, high)
    if largest >= _INFINITE or smallest < _MINUS_INFINITE:
        return np.nan
    return _value(largest)


@njit(nogil=True, error_model="numpy")
def first_at(row: "Row", tops: "Ids", top: float) -> int:
    """The lowest id whose logit is the largest. Compared as floats: -0.0 is no less than 0.0."""
    start = 0
    while _value(tops[start // BLOCK]) != top:
        start += BLOCK
    while row[start] != top:
        start += 1
    return start


@njit(nogil=True, error_model="numpy")
def gather(row: "Row", tops: "Ids", bound: float, ids: "Ids", scores: "Floats") -> int:
    """Finite logits not below `bound`, in the order of their ids; how many."""
    bound = max(bound, LOWEST)
    count = 0
    for start in range(0, row.size, BLOCK):
        if _value(tops[start // BLOCK]) >= bound:
            for i in range(start, min(start + BLOCK, row.size)):
                ids[count] = i
                scores[count] = row[i]
                if scores[count] >= bound:  # compiled without a branch
                    count += 1
    return count


@njit(nogil=True, error_model="numpy")
def _sort(scores: "Floats", members: "Ids", count: int) -> None:
    """A few members by score, falling; equal ones stay in their order."""
    for k in range(1, count):
        moved = members[k]
        place = k
        while place > 0 and scores[members[place - 1]] < scores[moved]:
            members[place] = members[place - 1]
            place -= 1
        members[place] = moved


@njit(nogil=True, error_model="numpy")
def reach(
    scores: "Floats", weights: "Floats", count: int, target: float, high: float, low: float, bins: "Floats",
    members: "Ids",
) -> tuple[float, int]:  # fmt: skip
    """(score, position) of the element at which the weight of all up to it reaches the target; else of the last one.

    Order: score falling, position rising. All scores lie within [low, high]; count > 0, and some weight is above 0.
    """
    before, narrowed = 0.0, False
    while count > _FEW and high - low > _SAME:
        width = _BINS / (high - low)
        for b in range(_BINS):
            bins[b] = 0.0
        for k in range(count):
            i = np.uintp(members[k]) if narrowed else np.uintp(k)
            bins[np.uintp(min((high - scores[i]) * width, _BINS - 1.0))] += weights[i]
        chosen, above = np.uintp(0), before
        for b in range(_BINS):
            if bins[b] > 0.0:
                chosen, above = np.uintp(b), before
                before += bins[b]
                if before >= target:
                    break
        before = above
        kept = 0
        for k in range(count):
            i = np.uintp(members[k]) if narrowed else np.uintp(k)  # unsigned: no wrapping of negative indices
            members[np.uintp(kept)] = i
            if np.uintp(min((high - scores[i]) * width, _BINS - 1.0)) == chosen:
                kept += 1
        count, narrowed = kept, True
        high, low = scores[members[0]], scores[members[0]]
        for k in range(count):
            high, low = max(high, scores[members[k]]), min(low, scores[members[k]])
    if not narrowed:
        for position in range(count):
            members[position] = position
    if high - low > _SAME:
        _sort(scores, members, count)
    for k in range(count - 1):
        before += weights[members[k]]
        if before >= target:
            return scores[members[k]], members[k]
    return scores[members[count - 1]], members[count - 1]


@njit(nogil=True, error_model="numpy")
def keep(
    ids: "Ids", scores: "Floats", weights: "Floats", count: int, score: float, position: int
) -> int:  # fmt: skip
    """Leave only elements up to (score, position) in the order of `reach`; how many."""
    kept = 0
    for i in range(count):
        stays = (scores[i] > score) or (scores[i] == score and i <= position)
        ids[kept], scores[kept], weights[kept] = ids[i], scores[i], weights[i]
        kept += stays
    return kept


@njit(nogil=True, error_model="numpy")
def lowest(scores: "Floats", count: int) -> float:
    lowest = scores[0]
    for i in range(count):
        lowest = min(lowest, scores[i])
    return lowest


@njit(nogil=True, error_model="numpy")
def likeliest(row: "Row", top: float, k: int, scratch: "Floats") -> int:
    """The k largest logits as candidates, fewer if there are not so many finite ones; all with k = 0. How many."""
    scores, weights, ids, members, tops, _, _, bins = parts(scratch, row.size)
    blocks = (row.size + BLOCK - 1) // BLOCK
    bound = LOWEST
    if 0 < k <= blocks:
        # Each of the k blocks with the largest tops holds one logit at least as large as the least of these tops.
        count = 0
        for b in range(blocks):
            scores[count] = _value(tops[b])
            weights[count] = 1.0
            count += scores[count] >= LOWEST
        if count >= k:
            bound, _ = reach(scores, weights, count, np.float64(k), top, lowest(scores, count), bins, members)
    count = gather(row, tops, bound, ids, scores)
    if 0 < k < count:
        for i in range(count):
            weights[i] = 1.0
        low = lowest(scores, count)
        score, position = reach(scores, weights, count, np.float64(k), top, low, bins, members)
        count = keep(ids, scores, weights, count, score, position)
    return count
