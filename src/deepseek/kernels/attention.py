"""Grouped-query attention over a paged cache: prompts and single tokens by the same code, so with the same bits.

Keys go through in blocks of BLOCK tokens at absolute positions, in ascending order, with a running maximum and sum
(online softmax, arXiv 1805.02867), so no score matrix is ever held. Every PART_BLOCKS blocks the running mix is closed
and joined to those before it, in order: so parts may be computed apart when few sequences must keep many threads busy.
A query's result depends on nothing but its own keys. A tile is a few consecutive tokens of one sequence times the
query heads that share a key head.

Cache of one layer in one block of tokens, all halves:
    keys    (key heads, width, BLOCK)    transposed: a lane is a token
    values  (key heads, BLOCK, width)
width: the head's size rounded up to whole vectors, zero beyond.
"""

from numba import njit

from deepseek.kernels.memory import as_f32, copy_bytes, field, get_f32, get_i32, get_i64, put_f16, put_f32
from deepseek.kernels.plan import STATE, STATE_PARTS, STATE_TILES, kernel, take
from deepseek.kernels.rows import norm_factor
from deepseek.kernels.tiles import float_tile
from deepseek.kernels.vectors import (
    add,
    add_i32,
    clamp,
    div,
    exp,
    first_lane,
    fma,
    lane_numbers,
    load_f32,
    max_lane,
    maximum,
    mul,
    splat_f32,
    splat_i32,
    store_f16,
    store_f32,
    sub,
    sum_lanes,
    where_less_i32,
)

BLOCK = 32  # tokens a cache block
TILE_ROWS = 16  # query rows (tokens x heads of a group) a tile at most
MAX_WIDTH = 256
PART_BLOCKS = 8  # cache blocks that are joined to what came before as one
_ROWS_BYTES = TILE_ROWS * MAX_WIDTH * 4
# A thread's scratch: queries, the mix of a part, the joined mix, scores, and of each row four numbers.
MIXED, JOINED, SCORES = _ROWS_BYTES, 2 * _ROWS_BYTES, 3 * _ROWS_BYTES
HIGHEST, SUMS, JOINED_HIGHEST, JOINED_SUMS = (SCORES + TILE_ROWS * (4 * BLOCK + 4 * place) for place in range(4))
SCRATCH_BYTES = JOINED_SUMS + TILE_ROWS * 4 + 64
MOST_TILES_IN_PARTS = 4
TILE_FIELDS = 3  # int32: first row, rows, chunk
_F16_MAX = 65504.0
_INLINE = {"nogil": True, "error_model": "numpy"}

# Columns that both kernels share.
(QUERIES, QUERY_STRIDE, HEADS, KEY_HEADS, HEAD_DIM, WIDTH, POOL, BLOCK_BYTES, KEYS_AT, VALUES_AT, POSITIONS, CHUNKS,
 TABLES, TABLE_STRIDE, OUT, OUT_STRIDE, TILES, WINDOW, SCRATCH, KEYS, KEY_STRIDE, VALUES, VALUE_STRIDE, COSINES,
 SINES, ROTATED, INTERLEAVED, SCALE, QUERY_NORM, KEY_NORM, EPSILON, PARTS) = range(4, 36)  # fmt: skip
"""QUERIES, KEYS, VALUES: rows of float32 as projected, strides in bytes. KEYS_AT, VALUES_AT: offset of this layer's
part in a cache block. POSITIONS, CHUNKS: int32 of each row. TABLES: int32 block numbers, TABLE_STRIDE bytes a chunk.
TILES: see TILE_FIELDS. WINDOW: tokens seen back, itself included; 0: all. COSINES, SINES: (positions, pairs) float32.
ROTATED: elements of a head; SCALE, EPSILON: addresses of a float32. QUERY_NORM, KEY_NORM: weights of a head, or 0.
PARTS: room for what single tokens' parts leave for `join`, see `parts_bytes`."""


def parts_of(tokens: int) -> int:
    """Parts in which so many tokens of one sequence are attended."""
    return -(-tokens // (BLOCK * PART_BLOCKS))


def parts_bytes(heads: int, width: int, tokens: int) -> int:
    """Room for the parts of MOST_TILES_IN_PARTS tiles of one token each, of sequences of so many tokens."""
    return MOST_TILES_IN_PARTS * heads * parts_of(tokens) * (4 * width + 64)


@njit(**_INLINE)
def cache_block(op: int, chunk: int, position: int) -> int:
    """Address of the cache block that holds `position` of a chunk's sequence."""
    number = get_i32(field(op, TABLES) + chunk * field(op, TABLE_STRIDE) + 4 * (position // BLOCK))
    return field(op, POOL) + number * field(op, BLOCK_BYTES)


@njit(**_INLINE)
def rotate_in_place(head: int, pairs: int, cosines: int, sines: int, interleaved: int) -> None:
    """Rotate 2 * pairs floats: neighbours (0, 1) ... if interleaved, else (0, pairs) ... Scalar: a head is short."""
    first_step, second = (8, 4) if interleaved != 0 else (4, 4 * pairs)
    for pair in range(pairs):
        at = head + pair * first_step
        a, b = get_f32(at), get_f32(at + second)
        cosine, sine = get_f32(cosines + 4 * pair), get_f32(sines + 4 * pair)
        put_f32(at, as_f32(a * cosine - b * sine))
        put_f32(at + second, as_f32(b * cosine + a * sine))


@njit(**_INLINE)
def scale_row(at: int, count: int, weight: int, factor: float) -> None:
    """Multiply `count` floats by factor and, if weight is not 0, by its floats."""
    for place in range(count):
        value = as_f32(get_f32(at + 4 * place) * factor)
        put_f32(at + 4 * place, as_f32(get_f32(weight + 4 * place) * value) if weight != 0 else value)


@njit(**_INLINE)
def _norm_head(op: int, head: int, weight: int) -> None:
    if weight != 0:
        total = as_f32(0.0)
        for place in range(field(op, HEAD_DIM)):
            value = get_f32(head + 4 * place)
            total = as_f32(total + value * value)
        factor = norm_factor(total, field(op, HEAD_DIM), get_f32(field(op, EPSILON)))
        scale_row(head, field(op, HEAD_DIM), weight, factor)


@kernel
def rotate_and_store(op: int, me: int) -> None:
    """Norm, rotate and scale each row's queries in place; norm and rotate its keys and put them into the cache."""
    rows = get_i64(field(op, STATE))
    row = take(op, 1)
    while row < rows:
        _rotate_row(op, row)
        row = take(op, 1)


@njit(**_INLINE)
def _rotate_row(op: int, row: int) -> None:
    position = get_i32(field(op, POSITIONS) + 4 * row)
    pairs, head_bytes = field(op, ROTATED) // 2, 4 * field(op, HEAD_DIM)
    cosines, sines = field(op, COSINES) + 4 * pairs * position, field(op, SINES) + 4 * pairs * position
    queries = field(op, QUERIES) + row * field(op, QUERY_STRIDE)
    for head in range(field(op, HEADS)):
        at = queries + head * head_bytes
        _norm_head(op, at, field(op, QUERY_NORM))
        rotate_in_place(at, pairs, cosines, sines, field(op, INTERLEAVED))
    keys = field(op, KEYS) + row * field(op, KEY_STRIDE)
    for head in range(field(op, KEY_HEADS)):
        at = keys + head * head_bytes
        _norm_head(op, at, field(op, KEY_NORM))
        rotate_in_place(at, pairs, cosines, sines, field(op, INTERLEAVED))
    values = field(op, VALUES) + row * field(op, VALUE_STRIDE)
    _store_row(op, row, position, keys, values)


@njit(**_INLINE)
def _store_row(op: int, row: int, position: int, keys: int, values: int) -> None:
    block = cache_block(op, get_i32(field(op, CHUNKS) + 4 * row), position)
    slot, size, width = position % BLOCK, field(op, HEAD_DIM), field(op, WIDTH)
    largest = as_f32(_F16_MAX)
    for head in range(field(op, KEY_HEADS)):
        key_at = block + field(op, KEYS_AT) + head * (2 * width * BLOCK) + 2 * slot
        value_at = block + field(op, VALUES_AT) + head * (2 * width * BLOCK) + 2 * width * slot
        for place in range(size):
            key = get_f32(keys + 4 * (head * size + place))
            put_f16(key_at + 2 * BLOCK * place, min(max(key, -largest), largest))
        if size == width:
            for place in range(size // 16):
                value = clamp(load_f32(values + 4 * (head * size + 16 * place)), -largest, largest)
                store_f16(value_at + 32 * place, value)
        else:
            for place in range(size):
                value_f32 = get_f32(values + 4 * (head * size + place))
                put_f16(value_at + 2 * place, min(max(value_f32, -largest), largest))


@kernel
def attend(op: int, me: int) -> None:
    """softmax(q k^T) v for each tile and key head, long tiles first; or a part of the keys of each, for `join`."""
    key_heads, state = field(op, KEY_HEADS), field(op, STATE)
    parts = get_i64(state + 8 * STATE_PARTS)
    tiles = get_i64(state + 8 * STATE_TILES)
    units = tiles * key_heads * max(parts, 1)
    scratch = field(op, SCRATCH) + me * SCRATCH_BYTES
    unit = take(op, 1)
    while unit < units:
        if parts == 0:
            behind = units - 1 - unit
            tile = field(op, TILES) + 4 * TILE_FIELDS * (behind // key_heads)
            _attend_all(op, tile, behind % key_heads, scratch)
        else:
            part, which = unit % parts, unit // parts
            tile = field(op, TILES) + 4 * TILE_FIELDS * (which // key_heads)
            _attend_apart(op, tile, which, part, parts, scratch)
        unit = take(op, 1)


@njit(**_INLINE)
def _rows_of(op: int, tile: int) -> int:
    """Query rows of a tile: its tokens times the heads of a group."""
    return get_i32(tile + 4) * (field(op, HEADS) // field(op, KEY_HEADS))


@njit(**_INLINE)
def _part_range(op: int, tile: int) -> tuple[int, int]:
    """Parts of PART_BLOCKS cache blocks, at absolute positions, that some row of a tile sees: first, and behind."""
    start = get_i32(field(op, POSITIONS) + 4 * get_i32(tile))
    last, window = start + get_i32(tile + 4) - 1, field(op, WINDOW)
    first = max(0, start - window + 1) if window > 0 else 0
    return first // (BLOCK * PART_BLOCKS), last // (BLOCK * PART_BLOCKS) + 1


@njit(**_INLINE)
def _attend_all(op: int, tile: int, head: int, scratch: int) -> None:
    """All parts one after the other, each joined to those before it."""
    rows, width = _rows_of(op, tile), field(op, WIDTH)
    _load_queries(op, tile, head, scratch)
    first, end = _part_range(op, tile)
    total = scratch + JOINED
    for part in range(first, end):
        _attend_part(op, tile, head, part, scratch)
        for row in range(rows):
            _join_row(scratch + MIXED + 4 * width * row, scratch + HIGHEST + 4 * row, scratch + SUMS + 4 * row,
                      total + 4 * width * row, scratch + JOINED_HIGHEST + 4 * row, scratch + JOINED_SUMS + 4 * row,
                      width, int(part == first))  # fmt: skip
    _write_tile(op, tile, head, total, scratch + JOINED_SUMS)


@njit(**_INLINE)
def _attend_apart(op: int, tile: int, which: int, part: int, parts: int, scratch: int) -> None:
    """One part, left in PARTS for `join`: of each row the mix, its maximum and its sum."""
    first, end = _part_range(op, tile)
    if part < first or part >= end:
        return
    rows, width = _rows_of(op, tile), field(op, WIDTH)
    head = which % field(op, KEY_HEADS)
    _load_queries(op, tile, head, scratch)
    _attend_part(op, tile, head, part, scratch)
    for row in range(rows):
        place = field(op, PARTS) + ((which * parts + part) * rows + row) * (4 * width + 64)
        copy_bytes(place, scratch + MIXED + 4 * width * row, 4 * width)
        put_f32(place + 4 * width, get_f32(scratch + HIGHEST + 4 * row))
        put_f32(place + 4 * width + 4, get_f32(scratch + SUMS + 4 * row))


@kernel
def join(op: int, me: int) -> None:
    """What `attend` left in parts, joined in the order of the keys: with the same bits as without parts."""
    key_heads, state, width = field(op, KEY_HEADS), field(op, STATE), field(op, WIDTH)
    parts = get_i64(state + 8 * STATE_PARTS)
    units = get_i64(state + 8 * STATE_TILES) * key_heads if parts > 0 else 0
    scratch = field(op, SCRATCH) + me * SCRATCH_BYTES
    which = take(op, 1)
    while which < units:
        tile = field(op, TILES) + 4 * TILE_FIELDS * (which // key_heads)
        rows = _rows_of(op, tile)
        first, end = _part_range(op, tile)
        for part in range(first, end):
            for row in range(rows):
                place = field(op, PARTS) + ((which * parts + part) * rows + row) * (4 * width + 64)
                _join_row(place, place + 4 * width, place + 4 * width + 4, scratch + JOINED + 4 * width * row,
                          scratch + JOINED_HIGHEST + 4 * row, scratch + JOINED_SUMS + 4 * row,
                          width, int(part == first))  # fmt: skip
        _write_tile(op, tile, which % key_heads, scratch + JOINED, scratch + JOINED_SUMS)
        which = take(op, 1)


@njit(**_INLINE)
def _join_row(
    mixed: int, highest: int, total: int, to_mixed: int, to_highest: int, to_total: int, width: int, is_first: int
) -> None:
    """Add one part of a row to those before it: both are brought to the larger of their maxima."""
    if is_first != 0:
        copy_bytes(to_mixed, mixed, 4 * width)
        put_f32(to_highest, get_f32(highest))
        put_f32(to_total, get_f32(total))
        return
    before, here = get_f32(to_highest), get_f32(highest)
    top = max(before, here)
    if here == -float("inf"):  # a window hides all of this part
        return
    old, new = as_f32(0.0), first_lane(exp(splat_f32(as_f32(here - top))))
    if before > -float("inf"):
        old = first_lane(exp(splat_f32(as_f32(before - top))))
    old_lanes, new_lanes = splat_f32(old), splat_f32(new)
    for place in range(0, 4 * width, 64):
        kept = mul(load_f32(to_mixed + place), old_lanes)
        store_f32(to_mixed + place, fma(load_f32(mixed + place), new_lanes, kept))
    put_f32(to_highest, as_f32(top))
    put_f32(to_total, as_f32(as_f32(get_f32(to_total) * old) + as_f32(get_f32(total) * new)))


@njit(**_INLINE)
def _load_queries(op: int, tile: int, head: int, scratch: int) -> None:
    """The tile's queries, scaled, in whole vectors."""
    heads = field(op, HEADS) // field(op, KEY_HEADS)
    size, width, scale = field(op, HEAD_DIM), field(op, WIDTH), get_f32(field(op, SCALE))
    for row in range(_rows_of(op, tile)):
        source = field(op, QUERIES) + (get_i32(tile) + row // heads) * field(op, QUERY_STRIDE)
        at = scratch + row * 4 * width
        copy_bytes(at, source + 4 * size * (head * heads + row % heads), 4 * size)
        scale_row(at, size, 0, scale)
        for place in range(size, width):
            put_f32(at + 4 * place, as_f32(0.0))


@njit(**_INLINE)
def _attend_part(op: int, tile: int, head: int, part: int, scratch: int) -> None:
    """Mix, maximum and sum of each row of a tile over the keys of one part."""
    heads = field(op, HEADS) // field(op, KEY_HEADS)
    width, window, rows = field(op, WIDTH), field(op, WINDOW), _rows_of(op, tile)
    scores, mixed = scratch + SCORES, scratch + MIXED
    for row in range(rows):
        for place in range(width // 16):
            store_f32(mixed + row * 4 * width + 64 * place, splat_f32(as_f32(0.0)))
        put_f32(scratch + HIGHEST + 4 * row, as_f32(-float("inf")))
        put_f32(scratch + SUMS + 4 * row, as_f32(0.0))
    start = get_i32(field(op, POSITIONS) + 4 * get_i32(tile))
    last = start + get_i32(tile + 4) - 1
    begin = max(0, start - window + 1) // BLOCK if window > 0 else 0
    for number in range(max(begin, part * PART_BLOCKS), min(last // BLOCK, (part + 1) * PART_BLOCKS - 1) + 1):
        block = cache_block(op, get_i32(tile + 8), number * BLOCK)
        keys = block + field(op, KEYS_AT) + head * (2 * width * BLOCK)
        values = block + field(op, VALUES_AT) + head * (2 * width * BLOCK)
        ahead = 0  # to the next block, which lies anywhere
        if number < last // BLOCK:
            ahead = cache_block(op, get_i32(tile + 8), (number + 1) * BLOCK) - block
        score_tiles(keys, width, scratch, rows, scores, ahead)
        for row in range(rows):
            seen = start + row // heads + 1 - number * BLOCK
            softmax_row(scores + 4 * BLOCK * row, seen, seen - window if window > 0 else 0,
                        scratch + HIGHEST + 4 * row, scratch + SUMS + 4 * row, mixed + row * 4 * width,
                        width // 16)  # fmt: skip
        mix_tiles(values, width, scores, rows, min(BLOCK, last + 1 - number * BLOCK), mixed, ahead)


@njit(**_INLINE)
def _write_tile(op: int, tile: int, head: int, mixed: int, sums: int) -> None:
    heads = field(op, HEADS) // field(op, KEY_HEADS)
    size, width = field(op, HEAD_DIM), field(op, WIDTH)
    for row in range(_rows_of(op, tile)):
        token = get_i32(tile) + row // heads
        out = field(op, OUT) + token * field(op, OUT_STRIDE) + 4 * size * (head * heads + row % heads)
        _write_row(mixed + row * 4 * width, size, get_f32(sums + 4 * row), out)


@njit(**_INLINE)
def _write_row(mixed: int, size: int, total: float, out: int) -> None:
    place = 0
    while place + 16 <= size:
        store_f32(out + 4 * place, div(load_f32(mixed + 4 * place), splat_f32(total)))
        place += 16
    while place < size:
        put_f32(out + 4 * place, as_f32(get_f32(mixed + 4 * place) / total))
        place += 1


@njit(**_INLINE)
def softmax_row(scores: int, end: int, begin: int, highest: int, total: int, mixed: int, vectors: int) -> None:
    """Scores of one query with a block to unnormalised probabilities, in place; keys begin <= key < end are seen.

    highest, total: addresses of the running maximum and sum; `mixed`, the running mix, is brought to the new maximum.
    """
    nothing = splat_f32(as_f32(-float("inf")))
    lanes = lane_numbers()
    before = get_f32(highest)
    first, second = load_f32(scores), load_f32(scores + 64)
    if end < BLOCK or begin > 0:
        past, early = splat_i32(end), splat_i32(begin)
        lanes_after = add_i32(lanes, splat_i32(16))
        first = where_less_i32(lanes, past, where_less_i32(lanes, early, nothing, first), nothing)
        second = where_less_i32(lanes_after, past, where_less_i32(lanes_after, early, nothing, second), nothing)
    top = max(before, max_lane(maximum(first, second)))
    if top == -float("inf"):  # nothing of this block is seen
        store_f32(scores, splat_f32(as_f32(0.0)))
        store_f32(scores + 64, splat_f32(as_f32(0.0)))
        return
    high = splat_f32(as_f32(top))
    first, second = exp(sub(first, high)), exp(sub(second, high))
    if end < BLOCK or begin > 0:
        zero = splat_f32(as_f32(0.0))
        past, early = splat_i32(end), splat_i32(begin)
        lanes_after = add_i32(lanes, splat_i32(16))
        first = where_less_i32(lanes, past, where_less_i32(lanes, early, zero, first), zero)
        second = where_less_i32(lanes_after, past, where_less_i32(lanes_after, early, zero, second), zero)
    store_f32(scores, first)
    store_f32(scores + 64, second)
    share = sum_lanes(add(first, second))
    if top > before:
        factor = as_f32(0.0)
        if before > -float("inf"):
            factor = first_lane(exp(splat_f32(as_f32(before - top))))
        put_f32(total, as_f32(get_f32(total) * factor + share))
        for place in range(vectors):
            store_f32(mixed + 64 * place, mul(load_f32(mixed + 64 * place), splat_f32(factor)))
        put_f32(highest, as_f32(top))
    else:
        put_f32(total, as_f32(get_f32(total) + share))


@njit(**_INLINE)
def score_tiles(keys: int, width: int, queries: int, rows: int, scores: int, ahead: int) -> None:
    """scores (rows, BLOCK) = queries (rows, width) @ keys (width, BLOCK halves)."""
    row = 0
    stride = 4 * width
    while row < rows:
        left = rows - row
        x, out = queries + row * stride, scores + row * 4 * BLOCK
        if left >= 6:
            float_tile(1, 6, 2, keys, 32, 64, width, x, stride, 4, out, 128, 64, 0, ahead)
            row += 6
        elif left >= 3:
            float_tile(1, 3, 2, keys, 32, 64, width, x, stride, 4, out, 128, 64, 0, ahead)
            row += 3
        else:
            float_tile(1, 1, 2, keys, 32, 64, width, x, stride, 4, out, 128, 64, 0, ahead)
            row += 1


@njit(**_INLINE)
def mix_tiles(values: int, width: int, shares: int, rows: int, keys: int, mixed: int, ahead: int) -> None:
    """mixed (rows, width) += shares (rows, BLOCK) @ values (BLOCK, width halves), the first `keys` keys."""
    row = 0
    stride = 4 * width
    while row < rows:
        left = rows - row
        x = shares + row * 4 * BLOCK
        count = 6 if left >= 6 else 3 if left >= 3 else 1
        column = 0
        while column < width:
            weights, out = values + 2 * column, mixed + row * stride + 4 * column
            if column + 64 <= width:
                if count == 6:
                    float_tile(1, 6, 4, weights, 32, 2 * width, keys, x, 128, 4, out, stride, 64, 1, ahead)
                elif count == 3:
                    float_tile(1, 3, 4, weights, 32, 2 * width, keys, x, 128, 4, out, stride, 64, 1, ahead)
                else:
                    float_tile(1, 1, 4, weights, 32, 2 * width, keys, x, 128, 4, out, stride, 64, 1, ahead)
                column += 64
            else:
                if count == 6:
                    float_tile(1, 6, 1, weights, 32, 2 * width, keys, x, 128, 4, out, stride, 64, 1, ahead)
                elif count == 3:
                    float_tile(1, 3, 1, weights, 32, 2 * width, keys, x, 128, 4, out, stride, 64, 1, ahead)
                else:
                    float_tile(1, 1, 1, weights, 32, 2 * width, keys, x, 128, 4, out, stride, 64, 1, ahead)
                column += 16
        row += count
