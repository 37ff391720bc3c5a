"""One token from one row of logits, and what its probabilities were.

Every filter but the last keeps a beginning of the row in the order of `deepseek.kernels.selection`, so none sorts it.
Before the exact search, a bound certainly below the last element kept leaves few candidates.

Weights are exp((logit - largest) / temperature) in float64, summed in one fixed order, and draws are counted
(`random_numbers`): a token depends on its row and its numbers, not on who calls or what else is sampled.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

from deepseek.kernels import compile_cache as compile_cache
from deepseek.kernels.exponential import BLOCK, exp_below_one, weigh_block
from deepseek.kernels.random_numbers import uniform
from deepseek.kernels.selection import (
    LOWEST,
    first_at,
    gather,
    keep,
    likeliest,
    lowest,
    parts,
    reach,
    scratch_size,
    survey,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepseek.kernels.selection import Floats, Ids, Row

NOTHING_POSSIBLE = -1
"""Every logit is -inf."""
NOT_A_NUMBER = -2
"""A logit is NaN or +inf."""


@njit(nogil=True, error_model="numpy")
def _keep_heavy(ids: "Ids", scores: "Floats", weights: "Floats", count: int, least: float) -> int:
    """Leave only elements of at least this weight; how many."""
    kept = 0
    for i in range(count):
        stays = weights[i] >= least
        ids[kept], scores[kept], weights[kept] = ids[i], scores[i], weights[i]
        kept += stays
    return kept


@njit(nogil=True, error_model="numpy")
def _sum(weights: "Floats", count: int) -> float:
    total = 0.0
    for i in range(count):
        total += weights[i]
    return total


@njit(nogil=True, error_model="numpy")
def _total(row: "Row", top: float, scale: float, sums: "Floats", block: "Floats") -> float:
    """The weight of the whole row, and of each block into `sums`."""
    total = 0.0
    for start in range(0, row.size, BLOCK):
        sums[start // BLOCK] = weigh_block(row[start : start + BLOCK], top, scale, block)
        total += sums[start // BLOCK]
    return total


@njit(nogil=True, error_model="numpy")
def _typical(ids: "Ids", scores: "Floats", weights: "Floats", count: int, mass: float, scale: float, top: float,
             bins: "Floats", members: "Ids") -> int:  # fmt: skip
    """Leave the candidates whose surprise is closest to the expected one, until their share reaches `mass`."""
    total, expected = 0.0, 0.0
    for i in range(count):
        total += weights[i]
        if weights[i] > 0.0:
            expected += weights[i] * ((scores[i] - top) * scale)
    expected /= total
    kept = 0
    for i in range(count):
        if weights[i] > 0.0:
            ids[kept], weights[kept] = ids[i], weights[i]
            scores[kept] = -abs((scores[i] - top) * scale - expected)
            kept += 1
    low = lowest(scores, kept)
    score, position = reach(scores, weights, kept, mass * total, 0.0, low, bins, members)
    return keep(ids, scores, weights, kept, score, position)


@njit(nogil=True, error_model="numpy")
def filter_row(
    row: "Row", top: float, scale: float, top_k: int, top_p: float, min_p: float, typical_p: float, scratch: "Floats"
) -> int:
    """Candidates after all filters in `parts(scratch)`: ids rising, and their weights, not normalised. How many."""
    n = row.size
    scores, weights, ids, members, tops, sums, block, bins = parts(scratch, n)
    top_k = min(top_k, n)
    bound, total = LOWEST, 0.0
    if min_p > 0.0:
        bound = top + np.log(min_p) / scale
    elif top_p < 1.0 and top_k == 0:
        # Tokens lighter than the rest's share of 1 - top_p, divided by all, can be left out together.
        total = _total(row, top, scale, sums, block)
        bound = top + np.log((1.0 - top_p) * total / n) / scale
    bound = max(bound - 1e-9 * (abs(top) + abs(bound)), LOWEST)
    count = likeliest(row, top, top_k, scratch) if top_k else gather(row, tops, bound, ids, scores)
    for i in range(count):
        weights[i] = exp_below_one((scores[i] - top) * scale)
    if min_p > 0.0:
        count = _keep_heavy(ids, scores, weights, count, min_p)
    if top_p < 1.0:
        low = lowest(scores, count) if bound == LOWEST else bound
        total = total if total > 0.0 else _sum(weights, count)
        score, position = reach(scores, weights, count, top_p * total, top, low, bins, members)
        count = keep(ids, scores, weights, count, score, position)
    if typical_p < 1.0:
        count = _typical(ids, scores, weights, count, typical_p, scale, top, bins, members)
    return count


@njit(nogil=True, error_model="numpy")
def _draw(ids: "Ids", weights: "Floats", count: int, u: float) -> int:
    """The candidate at the share `u` of all weight, in the order of ids. Overwrites the weights."""
    total = 0.0
    for i in range(count):
        total += weights[i]
        weights[i] = total
    target = u * total
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        if weights[middle] > target:
            high = middle
        else:
            low = middle + 1
    return ids[low]


@njit(nogil=True, error_model="numpy")
def _draw_from_all(row: "Row", top: float, scale: float, u: float, sums: "Floats", block: "Floats") -> int:
    target = u * _total(row, top, scale, sums, block)
    before, start = 0.0, 0
    while start + BLOCK < row.size and before + sums[start // BLOCK] <= target:
        before += sums[start // BLOCK]
        start += BLOCK
    weigh_block(row[start : start + BLOCK], top, scale, block)
    chosen = start
    for j in range(min(BLOCK, row.size - start)):
        if block[j] > 0.0:
            chosen = start + j
            before += block[j]
            if before > target:
                break
    return chosen


@njit(nogil=True, cache=True, error_model="numpy")
def sample_row(
    row: "Row", temperature: float, top_k: int, top_p: float, min_p: float, typical_p: float, seed: int,
    sample_index: int, draw_number: int, scratch: "Floats",
) -> int:  # fmt: skip
    """A token id, or NOTHING_POSSIBLE or NOT_A_NUMBER. Filters in the order temperature, min_p, top_k, top_p, typical.

    temperature 0: the largest logit. top_k 0, top_p 1, min_p 0 and typical_p 1 switch their filter off.
    """
    _, weights, ids, _, tops, sums, block, _ = parts(scratch, row.size)
    top = survey(row, tops)
    if np.isnan(top):
        return NOT_A_NUMBER
    if top == -np.inf:
        return NOTHING_POSSIBLE
    if temperature == 0.0:
        return first_at(row, tops, top)
    scale = min(1.0 / temperature, 1e300)
    u = uniform(seed, sample_index, draw_number)
    if top_k == 0 and top_p >= 1.0 and min_p <= 0.0 and typical_p >= 1.0:
        return _draw_from_all(row, top, scale, u, sums, block)
    count = filter_row(row, top, scale, top_k, top_p, min_p, typical_p, scratch)
    return _draw(ids, weights, count, u)


@intrinsic
def _pointer(typingctx: Any, at: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), codegen


@njit(nogil=True, error_model="numpy")
def sample_row_at(
    logits: int, vocabulary: int, temperature: float, top_k: int, top_p: float, min_p: float, seed: int,
    sample_index: int, draw_number: int, scratch: int,
) -> int:  # fmt: skip
    """`sample_row` for kernels, which hold addresses: of float32 logits and of float64 working memory."""
    row = carray(_pointer(logits), (vocabulary,), np.float32)
    memory = carray(_pointer(scratch), (scratch_size(vocabulary),), np.float64)
    return sample_row(
        row, temperature, top_k, top_p, min_p, 1.0, seed, sample_index, draw_number, memory
    )  # fmt: skip


@njit(nogil=True, cache=True, error_model="numpy")
def sample_rows(
    logits: "NDArray[np.float32]", temperatures: "Floats", top_ks: "NDArray[np.int64]", top_ps: "Floats",
    min_ps: "Floats", seeds: "NDArray[np.int64]", sample_indices: "NDArray[np.int64]",
    draw_numbers: "NDArray[np.int64]", out_tokens: "NDArray[np.int64]", scratch: "Floats",
) -> None:  # fmt: skip
    """A token for each row of logits (rows, vocabulary), as `sample_row`."""
    for r in range(logits.shape[0]):
        out_tokens[r] = sample_row(
            logits[r], temperatures[r], top_ks[r], top_ps[r], min_ps[r], 1.0, seeds[r], sample_indices[r],
            draw_numbers[r], scratch,
        )  # fmt: skip


@njit(nogil=True, cache=True, error_model="numpy")
def rank_row(row: "Row", count: int, out_ids: "Ids", scratch: "Floats") -> tuple[int, float]:
    """(how many, log of the sum of all exp(logit)): ids of the `count` largest logits into `out_ids`, ids rising.

    Fewer where fewer are finite; NOTHING_POSSIBLE or NOT_A_NUMBER instead of how many.
    """
    _, _, ids, _, tops, sums, block, _ = parts(scratch, row.size)
    top = survey(row, tops)
    if np.isnan(top):
        return NOT_A_NUMBER, 0.0
    if top == -np.inf:
        return NOTHING_POSSIBLE, 0.0
    found = 0
    if count > 0:
        found = likeliest(row, top, count, scratch)
        for i in range(found):
            out_ids[i] = ids[i]
    return found, top + np.log(_total(row, top, 1.0, sums, block))


@njit(nogil=True, cache=True, error_model="numpy")
def forbid(row: "Row", allowed: "NDArray[np.uint32]") -> None:
    """-inf where the bit of an id is 0: bit i % 32 of word i // 32."""
    for word in range((row.size + 31) // 32):
        bits = allowed[word]
        for i in range(word * 32, min(word * 32 + 32, row.size)):
            if not (bits >> np.uint32(i - word * 32)) & np.uint32(1):
                row[i] = -np.inf
