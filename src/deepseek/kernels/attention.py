"""Grouped-query attention over a paged cache: prompts and single tokens by the same code, so with the same bits.

Keys are taken in parts of PART_BLOCKS cache blocks at absolute positions. Within a part products are whole numbers and
exact (see `attention_store`), its softmax is closed (see `attention_softmax`), and parts are joined in ascending order
(online softmax, arXiv 1805.02867): so no score matrix is ever held, and parts may be computed apart when few sequences
must keep many threads busy. A query's result depends on nothing but its own keys. A tile is a few consecutive tokens
of one sequence times the query heads that share a key head.
"""

from numba import njit

from deepseek.kernels.attention_softmax import (
    MOST_WEIGHTS,
    MOST_WEIGHTS_OF_BYTES,
    join_row,
    round_weights,
    scale_scores,
    unit_of_weights,
    weigh_scores,
)
from deepseek.kernels.attention_store import (
    BLOCK,
    CODE_BYTES,
    HEAD_DIM,
    HEADS,
    KEY_HEADS,
    LONGEST,
    MAX_WIDTH,
    OUT,
    OUT_STRIDE,
    PARTS,
    POSITIONS,
    QUERIES,
    QUERY_STRIDE,
    SCALE,
    SCRATCH,
    SCRATCH_STRIDE,
    TILES,
    WIDTH,
    WINDOW,
    cache_block,
    euclidean_length,
    head_address,
    padded_head,
    scale_to,
    values_offset,
)
from deepseek.kernels.attention_tiles import load_i32, pair_tile, round_scaled, store_i16
from deepseek.kernels.memory import as_f32, copy_bytes, field, fill_zero, get_f32, get_i32, get_i64, put_f32
from deepseek.kernels.plan import STATE, STATE_PARTS, STATE_TEAM, STATE_TILES, kernel, take
from deepseek.kernels.vectors import load_f32, max_lane, mul, splat_f32, store_f32, sum_lanes, to_f32

TILE_ROWS = 48  # query rows (tokens x heads of a group) a tile at most
PART_BLOCKS = 8  # cache blocks whose softmax is one
_PART = PART_BLOCKS * BLOCK
_ROWS_BYTES = TILE_ROWS * MAX_WIDTH * 4
# Rows of scores and weights lie a line more than they need apart, so that a few do not fight for the same lines.
_SCORE_STRIDE, _WEIGHT_STRIDE = 4 * _PART + 64, 2 * _PART + 64
# A thread's scratch: codes of the queries, sums of codes, the mix of a part, the joined mix, scores, weights, factors
# of a part's keys and values, of each row seven numbers, and three vectors.
SUMS, MIXED, JOINED = _ROWS_BYTES // 2, _ROWS_BYTES // 2 + _ROWS_BYTES, _ROWS_BYTES // 2 + 2 * _ROWS_BYTES
SCORES = JOINED + _ROWS_BYTES
WEIGHTS = SCORES + TILE_ROWS * _SCORE_STRIDE
KEY_FACTORS = WEIGHTS + TILE_ROWS * _WEIGHT_STRIDE
VALUE_FACTORS = KEY_FACTORS + 4 * _PART
HIGHEST, TOTALS, JOINED_HIGHEST, JOINED_TOTALS, WEIGHT_SUMS, UNITS, QUERY_FACTORS = (
    VALUE_FACTORS + 4 * _PART + 4 * TILE_ROWS * place for place in range(7)
)
LANE_SUMS = QUERY_FACTORS + 4 * TILE_ROWS
SCRATCH_BYTES = LANE_SUMS + 192 * TILE_ROWS + 64
MOST_TILES_IN_PARTS = 4
TILE_FIELDS = 3  # int32: first row, rows, chunk
_LOG2_E = 1.4426950408889634
_INLINE = {"nogil": True, "error_model": "numpy"}


def parts_of(tokens: int) -> int:
    """Parts in which so many tokens of one sequence are attended."""
    return -(-tokens // (BLOCK * PART_BLOCKS))


def parts_bytes(heads: int, width: int, tokens: int) -> int:
    """Room for the parts of MOST_TILES_IN_PARTS tiles of one token each, of sequences of so many tokens."""
    return MOST_TILES_IN_PARTS * heads * parts_of(tokens) * (4 * width + 64)


@kernel
def attend(op: int, me: int) -> None:
    """softmax(q k^T) v for each tile and key head, long tiles first; or a part of the keys of each, for `join`."""
    key_heads, state = field(op, KEY_HEADS), field(op, STATE)
    parts = get_i64(state + 8 * STATE_PARTS)
    tiles = get_i64(state + 8 * STATE_TILES)
    units = tiles * key_heads * max(parts, 1)
    scratch = field(op, SCRATCH) + me * field(op, SCRATCH_STRIDE)
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
        _attend_part(op, tile, head, part, PART_BLOCKS, scratch)
        for row in range(rows):
            join_row(scratch + MIXED + 4 * width * row, scratch + HIGHEST + 4 * row, scratch + TOTALS + 4 * row,
                      total + 4 * width * row, scratch + JOINED_HIGHEST + 4 * row, scratch + JOINED_TOTALS + 4 * row,
                      width, int(part == first))  # fmt: skip
    _write_tile(op, tile, head, total, scratch + JOINED_TOTALS)


@njit(**_INLINE)
def _attend_apart(op: int, tile: int, which: int, part: int, parts: int, scratch: int) -> None:
    """One part, left in PARTS for `join`: of each row the mix, its maximum and its sum."""
    first, end = _part_range(op, tile)
    if part < first or part >= end:
        return
    rows, width = _rows_of(op, tile), field(op, WIDTH)
    head = which % field(op, KEY_HEADS)
    _load_queries(op, tile, head, scratch)
    _attend_part(op, tile, head, part, PART_BLOCKS * get_i64(field(op, STATE) + 8 * STATE_TEAM), scratch)
    for row in range(rows):
        place = field(op, PARTS) + ((which * parts + part) * rows + row) * (4 * width + 64)
        copy_bytes(place, scratch + MIXED + 4 * width * row, 4 * width)
        put_f32(place + 4 * width, get_f32(scratch + HIGHEST + 4 * row))
        put_f32(place + 4 * width + 4, get_f32(scratch + TOTALS + 4 * row))


@kernel
def join(op: int, me: int) -> None:
    """What `attend` left in parts, joined in the order of the keys: with the same bits as without parts."""
    key_heads, state, width = field(op, KEY_HEADS), field(op, STATE), field(op, WIDTH)
    parts = get_i64(state + 8 * STATE_PARTS)
    units = get_i64(state + 8 * STATE_TILES) * key_heads if parts > 0 else 0
    scratch = field(op, SCRATCH) + me * field(op, SCRATCH_STRIDE)
    which = take(op, 1)
    while which < units:
        tile = field(op, TILES) + 4 * TILE_FIELDS * (which // key_heads)
        rows = _rows_of(op, tile)
        first, end = _part_range(op, tile)
        for part in range(first, end):
            for row in range(rows):
                place = field(op, PARTS) + ((which * parts + part) * rows + row) * (4 * width + 64)
                join_row(place, place + 4 * width, place + 4 * width + 4, scratch + JOINED + 4 * width * row,
                          scratch + JOINED_HIGHEST + 4 * row, scratch + JOINED_TOTALS + 4 * row,
                          width, int(part == first))  # fmt: skip
        _write_tile(op, tile, which % key_heads, scratch + JOINED, scratch + JOINED_TOTALS)
        which = take(op, 1)


@njit(**_INLINE)
def _load_queries(op: int, tile: int, head: int, scratch: int) -> None:
    """Codes of the tile's queries, as long as a cached key's, and what brings them to logarithms of base 2."""
    heads = field(op, HEADS) // field(op, KEY_HEADS)
    size, width, scale = field(op, HEAD_DIM), field(op, WIDTH), get_f32(field(op, SCALE))
    padded = scratch + MIXED
    for row in range(_rows_of(op, tile)):
        source = field(op, QUERIES) + (get_i32(tile) + row // heads) * field(op, QUERY_STRIDE)
        padded_head(op, source + 4 * size * (head * heads + row % heads), padded)
        length = euclidean_length(padded, width)
        lanes = splat_f32(scale_to(length, LONGEST))
        for place in range(0, width, 16):
            store_i16(scratch + 2 * (row * width + place), round_scaled(load_f32(padded + 4 * place), lanes))
        put_f32(scratch + QUERY_FACTORS + 4 * row, as_f32(length / LONGEST * scale * _LOG2_E))


@njit(**_INLINE)
def _attend_part(op: int, tile: int, head: int, part: int, later: int, scratch: int) -> None:
    """Mix, maximum and sum of each row of a tile over the keys of one part. later: blocks from it to the next one."""
    heads = field(op, HEADS) // field(op, KEY_HEADS)
    width, window, rows = field(op, WIDTH), field(op, WINDOW), _rows_of(op, tile)
    start = get_i32(field(op, POSITIONS) + 4 * get_i32(tile))
    last, chunk, zero = start + get_i32(tile + 4) - 1, get_i32(tile + 8), part * PART_BLOCKS
    first = max(max(0, start - window + 1) // BLOCK if window > 0 else 0, zero)
    end = min(last // BLOCK + 1, zero + PART_BLOCKS)
    for number in range(first, end):
        keys = head_address(op, cache_block(op, chunk, number * BLOCK), head)
        factors, place = keys + 2 * values_offset(op), number - zero
        copy_bytes(scratch + KEY_FACTORS + 4 * BLOCK * place, factors, 4 * BLOCK)
        copy_bytes(scratch + VALUE_FACTORS + 4 * BLOCK * place, factors + 4 * BLOCK, 4 * BLOCK)
        beyond = head_address(op, cache_block(op, chunk, min(number + 2, last // BLOCK) * BLOCK), head) - keys
        _score_tiles(keys, field(op, CODE_BYTES), width, scratch, rows, scratch + SCORES + 4 * BLOCK * place,
                     values_offset(op), beyond)  # fmt: skip
    _weigh(op, start - zero * BLOCK, heads, rows, (end - zero) * BLOCK, scratch)
    fill_zero(scratch + SUMS, 4 * rows * width)
    for number in range(first, end):
        values = head_address(op, cache_block(op, chunk, number * BLOCK), head) + values_offset(op)
        ahead = head_address(op, cache_block(op, chunk, min(number + later, last // BLOCK) * BLOCK), head) - values
        pairs = (min(BLOCK, last + 1 - number * BLOCK) + 1) // 2
        _mix_tiles(values, field(op, CODE_BYTES), width,
                   scratch + WEIGHTS + 2 * BLOCK * (number - zero), rows, pairs, scratch + SUMS, ahead)  # fmt: skip
    for row in range(rows):
        unit = splat_f32(get_f32(scratch + UNITS + 4 * row))
        for place in range(4 * width * row, 4 * width * (row + 1), 64):
            store_f32(scratch + MIXED + place, mul(to_f32(load_i32(scratch + SUMS + place)), unit))


@njit(**_INLINE)
def _weigh(op: int, start: int, heads: int, rows: int, keys: int, scratch: int) -> None:
    """Scores of a part to weights, maxima, sums and units of all rows. start: where the first row is in the part.

    Stage by stage, so that the processor has several rows' sums over lanes under way at once.
    """
    window, sums = field(op, WINDOW), scratch + LANE_SUMS
    for row in range(rows):
        begin, end = _seen(start + row // heads, window)
        scale_scores(scratch + SCORES + _SCORE_STRIDE * row, scratch + KEY_FACTORS, begin, end, sums + 192 * row)
    for row in range(rows):
        put_f32(scratch + HIGHEST + 4 * row, max_lane(load_f32(sums + 192 * row)))
    for row in range(rows):
        begin, end = _seen(start + row // heads, window)
        weigh_scores(
            scratch + SCORES + _SCORE_STRIDE * row, scratch + VALUE_FACTORS, begin, end,
            get_f32(scratch + QUERY_FACTORS + 4 * row), get_f32(scratch + HIGHEST + 4 * row), sums + 192 * row,
        )  # fmt: skip
    most = as_f32(MOST_WEIGHTS if field(op, CODE_BYTES) == 2 else MOST_WEIGHTS_OF_BYTES)
    for row in range(rows):
        at = scratch + 4 * row
        begin, end = _seen(start + row // heads, window)
        # Nothing seen is -inf whatever the query, 0 times -inf included.
        highest = as_f32(get_f32(at + HIGHEST) * get_f32(at + QUERY_FACTORS)) if end > begin else as_f32(-float("inf"))
        put_f32(at + HIGHEST, highest)
        put_f32(at + TOTALS, sum_lanes(load_f32(sums + 192 * row)))
        put_f32(at + WEIGHT_SUMS, sum_lanes(load_f32(sums + 192 * row + 64)))
        put_f32(
            at + UNITS, unit_of_weights(get_f32(at + WEIGHT_SUMS), max_lane(load_f32(sums + 192 * row + 128)), most)
        )
    for row in range(rows):
        at = scratch + 4 * row
        begin, end = _seen(start + row // heads, window)
        unit = round_weights(scratch + SCORES + _SCORE_STRIDE * row, scratch + WEIGHTS + _WEIGHT_STRIDE * row, begin,
                             end, keys, get_f32(at + UNITS), get_f32(at + WEIGHT_SUMS))  # fmt: skip
        put_f32(at + UNITS, unit)


@njit(**_INLINE)
def _seen(position: int, window: int) -> tuple[int, int]:
    """The keys of a part, first and behind, that a query at a position counted from the part's start sees."""
    end = max(0, min(position + 1, _PART))
    return min(end, max(0, position + 1 - window)) if window > 0 else 0, end


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
    factor = as_f32(1.0 / float(total))
    place = 0
    while place + 16 <= size:
        store_f32(out + 4 * place, mul(load_f32(mixed + 4 * place), splat_f32(factor)))
        place += 16
    while place < size:
        put_f32(out + 4 * place, as_f32(get_f32(mixed + 4 * place) * factor))
        place += 1


@njit(**_INLINE)
def _score_tiles(
    keys: int, code_bytes: int, width: int, queries: int, rows: int, scores: int, ahead: int, beyond: int
) -> None:
    """scores (rows, BLOCK of _PART) = codes of queries (rows, width) times those of keys (width / 2, BLOCK, 2)."""
    row, pairs, stride, step = 0, width // 2, 2 * width, 2 * BLOCK * code_bytes
    while row < rows:
        x, out = queries + row * stride, scores + row * _SCORE_STRIDE
        if code_bytes == 2:
            if row + 6 <= rows:
                pair_tile(2, 6, 2, keys, 64, step, pairs, x, stride, out, _SCORE_STRIDE, 0, ahead, beyond)
                row += 6
            elif row + 3 <= rows:
                pair_tile(2, 3, 2, keys, 64, step, pairs, x, stride, out, _SCORE_STRIDE, 0, ahead, beyond)
                row += 3
            else:
                pair_tile(2, 1, 2, keys, 64, step, pairs, x, stride, out, _SCORE_STRIDE, 0, ahead, beyond)
                row += 1
        elif row + 6 <= rows:
            pair_tile(1, 6, 2, keys, 32, step, pairs, x, stride, out, _SCORE_STRIDE, 0, ahead, beyond)
            row += 6
        elif row + 3 <= rows:
            pair_tile(1, 3, 2, keys, 32, step, pairs, x, stride, out, _SCORE_STRIDE, 0, ahead, beyond)
            row += 3
        else:
            pair_tile(1, 1, 2, keys, 32, step, pairs, x, stride, out, _SCORE_STRIDE, 0, ahead, beyond)
            row += 1


@njit(**_INLINE)
def _mix_tiles(
    values: int, code_bytes: int, width: int, weights: int, rows: int, pairs: int, sums: int, ahead: int
) -> None:
    """sums (rows, width) += weights (rows, pairs of keys) times codes of values (pairs, width, 2)."""
    row, step = 0, 2 * code_bytes * width
    while row < rows:
        x, out = weights + row * _WEIGHT_STRIDE, sums + 4 * width * row
        count = 6 if row + 6 <= rows else 3 if row + 3 <= rows else 1
        column = 0
        while column < width:
            columns = 64 if column + 64 <= width else 16
            _mix_tile(values + 2 * code_bytes * column, code_bytes, count, columns, step, pairs, x, out + 4 * column,
                      4 * width, ahead)  # fmt: skip
            column += columns
        row += count


@njit(**_INLINE)
def _mix_tile(
    values: int, code_bytes: int, rows: int, columns: int, step: int, pairs: int, x: int, out: int, stride: int,
    ahead: int,
) -> None:  # fmt: skip
    shift = code_bytes * 32
    if code_bytes == 2 and columns == 64:
        if rows == 6:
            pair_tile(2, 6, 4, values, shift, step, pairs, x, _WEIGHT_STRIDE, out, stride, 1, ahead, ahead)
        elif rows == 3:
            pair_tile(2, 3, 4, values, shift, step, pairs, x, _WEIGHT_STRIDE, out, stride, 1, ahead, ahead)
        else:
            pair_tile(2, 1, 4, values, shift, step, pairs, x, _WEIGHT_STRIDE, out, stride, 1, ahead, ahead)
    elif code_bytes == 2:
        if rows == 6:
            pair_tile(2, 6, 1, values, shift, step, pairs, x, _WEIGHT_STRIDE, out, stride, 1, ahead, ahead)
        elif rows == 3:
            pair_tile(2, 3, 1, values, shift, step, pairs, x, _WEIGHT_STRIDE, out, stride, 1, ahead, ahead)
        else:
            pair_tile(2, 1, 1, values, shift, step, pairs, x, _WEIGHT_STRIDE, out, stride, 1, ahead, ahead)
    elif columns == 64:
        if rows == 6:
            pair_tile(1, 6, 4, values, shift, step, pairs, x, _WEIGHT_STRIDE, out, stride, 1, ahead, ahead)
        elif rows == 3:
            pair_tile(1, 3, 4, values, shift, step, pairs, x, _WEIGHT_STRIDE, out, stride, 1, ahead, ahead)
        else:
            pair_tile(1, 1, 4, values, shift, step, pairs, x, _WEIGHT_STRIDE, out, stride, 1, ahead, ahead)
    elif rows == 6:
        pair_tile(1, 6, 1, values, shift, step, pairs, x, _WEIGHT_STRIDE, out, stride, 1, ahead, ahead)
    elif rows == 3:
        pair_tile(1, 3, 1, values, shift, step, pairs, x, _WEIGHT_STRIDE, out, stride, 1, ahead, ahead)
    else:
        pair_tile(1, 1, 1, values, shift, step, pairs, x, _WEIGHT_STRIDE, out, stride, 1, ahead, ahead)
