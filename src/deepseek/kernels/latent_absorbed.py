"""Latent attention of generated tokens: keys' half of kv_b in the query, values' half behind the softmax.

Attention is then multi-query over the latents themselves. A unit is one row and a few heads; its blocks go by in
ascending order with a running maximum and sum, so the result depends neither on the units nor on the batch.
"""

from numba import njit

from deepseek.kernels import latent
from deepseek.kernels.attention_store import BLOCK
from deepseek.kernels.latent import (
    HEADS,
    HEADS_A_UNIT,
    NOPE,
    RANK,
    ROPE,
    TILE_HEADS,
    VALUE,
    WIDTH,
    cached_block,
    shared,
)
from deepseek.kernels.latent_tiles import EVERY_TOKEN, dot_tile, softmax_seen
from deepseek.kernels.memory import as_f32, copy_bytes, field, fill_zero, get_f32, get_i32, get_i64, put_f32
from deepseek.kernels.plan import STATE, STATE_ABSORBED_TILES, kernel, take
from deepseek.kernels.tiles import float_tile

# Columns of `attend_absorbed` beside those of `store_latent` that it uses in the same sense: QUERIES (rotated),
# FLOATS ... LOW_GROUPS (where mixed latents go, a row for each (row, head)), SCRATCH. ABSORBED: float32 rows, the
# queries turned into latents, heads HEAD_STRIDE bytes apart.
ABSORBED, ABSORBED_STRIDE, HEAD_STRIDE = range(25, 28)
# Columns of `join_heads`.
PADDED, PADDED_STRIDE, JOINED, JOINED_STRIDE = range(6, 10)

MAX_HEADS_A_UNIT = 16
_INLINE = {"nogil": True, "error_model": "numpy"}


def absorbed_scratch_bytes(width: int) -> int:
    """A thread's: queries and mixes of a unit, scores, maxima and sums, a block of tokens, one row more.

    width: of a cached token.
    """
    return MAX_HEADS_A_UNIT * (2 * 4 * width + 4 * BLOCK + 8) + 2 * BLOCK * width + 4 * (width + 128)


@kernel
def attend_absorbed(op: int, me: int) -> None:
    """softmax over the cached latents of every absorbed row and head, and the mix of the latents."""
    rows, heads, most = (
        get_i64(field(op, STATE) + 8 * STATE_ABSORBED_TILES),
        shared(op, HEADS),
        shared(op, HEADS_A_UNIT),
    )
    units = (heads + most - 1) // most
    scratch = field(op, latent.SCRATCH) + me * field(op, latent.SCRATCH_BYTES)
    unit = take(op, 1)
    while unit < rows * units:
        first = unit % units * most
        _attend_unit(op, unit // units, first, min(most, heads - first), scratch)
        unit = take(op, 1)


@njit(**_INLINE)
def _attend_unit(op: int, row: int, first: int, heads: int, scratch: int) -> None:
    width = shared(op, WIDTH)
    mixed = scratch + MAX_HEADS_A_UNIT * 4 * width
    scores = mixed + MAX_HEADS_A_UNIT * 4 * width
    highest = scores + MAX_HEADS_A_UNIT * 4 * BLOCK
    sums = highest + 4 * MAX_HEADS_A_UNIT
    gathered = sums + 4 * MAX_HEADS_A_UNIT
    spare = gathered + 2 * BLOCK * width
    _begin_unit(op, row, first, heads, scratch, mixed, highest, sums)
    chunk = get_i32(shared(op, latent.CHUNKS) + 4 * row)
    tokens = get_i32(shared(op, latent.POSITIONS) + 4 * row) + 1
    chosen = latent.chosen_of(op, row, tokens - 1)
    token = 0
    while token < tokens:
        if chosen == 0:
            at, count = cached_block(op, chunk, token // BLOCK), min(BLOCK, tokens - token)
            token += BLOCK
        else:
            at = gathered
            token, count = _gather(op, chunk, chosen, token, tokens, gathered)
        if count > 0:
            _attend_tokens(op, at, count, heads, scratch, scores, highest, sums, mixed)
    for head in range(heads):
        at = mixed + 4 * width * head
        latent.divide_row(at, (shared(op, RANK) + 15) // 16, get_f32(sums + 4 * head), at)
        latent.hand_over(op, at, shared(op, RANK), row * shared(op, HEADS) + first + head, spare)


@njit(**_INLINE)
def _gather(op: int, chunk: int, chosen: int, token: int, tokens: int, target: int) -> tuple[int, int]:
    """Copy the chosen tokens from `token` on, at most BLOCK. Returns where to go on, and how many were copied."""
    width, count = shared(op, WIDTH), 0
    while token < tokens and count < BLOCK:
        bits = get_i32(chosen + 4 * (token // BLOCK))
        if (bits >> (token % BLOCK)) & 1 != 0:
            source = cached_block(op, chunk, token // BLOCK) + 2 * width * (token % BLOCK)
            copy_bytes(target + 2 * width * count, source, 2 * width)
            count += 1
        token += 1
    return token, count


@njit(**_INLINE)
def _begin_unit(op: int, row: int, first: int, heads: int, queries: int, mixed: int, highest: int, sums: int) -> None:
    """Queries as the cache's rows lie: latent part, rotated part, zeros; heads up to whole tiles."""
    rank, nope, rope, width = shared(op, RANK), shared(op, NOPE), shared(op, ROPE), shared(op, WIDTH)
    whole = (heads + TILE_HEADS - 1) // TILE_HEADS * TILE_HEADS
    fill_zero(queries, 4 * width * whole)
    fill_zero(mixed, 4 * width * whole)
    for head in range(heads):
        at = queries + 4 * width * head
        absorbed = field(op, ABSORBED) + row * field(op, ABSORBED_STRIDE) + (first + head) * field(op, HEAD_STRIDE)
        copy_bytes(at, absorbed, 4 * rank)
        query = field(op, latent.QUERIES) + row * field(op, latent.QUERY_STRIDE) + 4 * (nope + rope) * (first + head)
        copy_bytes(at + 4 * rank, query + 4 * nope, 4 * rope)
        put_f32(highest + 4 * head, as_f32(-float("inf")))
        put_f32(sums + 4 * head, as_f32(0.0))


@njit(**_INLINE)
def _attend_tokens(
    op: int, tokens: int, count: int, heads: int, queries: int, scores: int, highest: int, sums: int, mixed: int
) -> None:
    """`count` cached tokens, at most BLOCK, for the heads of a unit."""
    width, vectors = shared(op, WIDTH), (shared(op, RANK) + 15) // 16
    seen = EVERY_TOKEN >> (BLOCK - count)
    for head in range(0, heads, TILE_HEADS):
        for token in range(0, count, 4):
            dot_tile(1, tokens + 2 * width * token, 2 * width, queries + 4 * width * head, 4 * width, width // 16,
                     scores + 4 * BLOCK * head + 4 * token, 4 * BLOCK)  # fmt: skip
    for head in range(heads):
        softmax_seen(scores + 4 * BLOCK * head, seen, highest + 4 * head, sums + 4 * head, mixed + 4 * width * head,
                     vectors)  # fmt: skip
    for head in range(0, heads, TILE_HEADS):
        x, out = scores + 4 * BLOCK * head, mixed + 4 * width * head
        column = 0
        while column < vectors:
            at, to = tokens + 32 * column, out + 64 * column
            if column + 4 <= vectors:
                float_tile(1, 4, 4, at, 32, 2 * width, count, x, 128, 4, to, 4 * width, 64, 1, 0)
                column += 4
            else:
                float_tile(1, 4, 1, at, 32, 2 * width, count, x, 128, 4, to, 4 * width, 64, 1, 0)
                column += 1


@kernel
def join_heads(op: int, me: int) -> None:
    """Heads of absorbed rows side by side, out of rows where each takes whole vectors."""
    rows, size = get_i64(field(op, STATE) + 8 * STATE_ABSORBED_TILES), shared(op, VALUE)
    row = take(op, 1)
    while row < rows:
        source = field(op, PADDED) + row * field(op, PADDED_STRIDE)
        target = field(op, JOINED) + row * field(op, JOINED_STRIDE)
        for head in range(shared(op, HEADS)):
            copy_bytes(target + 4 * size * head, source + 64 * ((size + 15) // 16) * head, 4 * size)
        row = take(op, 1)
