"""Latent attention of prompt tokens: keys and values of a head made from the cached latents, then ordinary attention.

A unit is one chunk (consecutive prompt rows of a sequence) and one head. Blocks of cached tokens at absolute positions
go by in ascending order; of each the head's keys and values are made once, for all rows of the chunk, whose running
maxima, sums and mixes lie in the thread's scratch. A row's result depends on nothing but its own position and keys.
"""

from functools import cache
from itertools import accumulate

from numba import njit

from deepseek.kernels import latent
from deepseek.kernels.attention_store import BLOCK
from deepseek.kernels.latent import HEADS, NOPE, RANK, ROPE, VALUE, WIDTH, cached_block, shared, whole_vectors
from deepseek.kernels.latent_tiles import EVERY_TOKEN, softmax_seen, transpose_16, widen_halves
from deepseek.kernels.linear import activation_group
from deepseek.kernels.memory import as_f32, copy_bytes, field, fill_zero, get_f32, get_i32, get_i64, put_f32
from deepseek.kernels.plan import STATE, STATE_EXPANDED_TILES, Kernel, kernel, take
from deepseek.kernels.rows import quantise_group
from deepseek.kernels.tiles import float_tile, integer_tile
from deepseek.kernels.vectors import add, load_f32, store_f32
from deepseek.packing import Packing

# Columns. KEY_UP, VALUE_UP: the first head's packed matrices, KEY_STEP, VALUE_STEP bytes a head; both of one packing:
# BLOCK_BYTES, CODES, SCALE_SHIFT, GROUP, GROUPS, ZERO_POINT as in `linear` and `rows` (float kinds: GROUPS steps).
# WIDE: 1 for activations of 16 bits. PARTS: see `scratch_parts`. QUERIES: rotated and scaled by `store_latent`.
(QUERIES, QUERY_STRIDE, OUT, OUT_STRIDE, KEY_UP, KEY_STEP, VALUE_UP, VALUE_STEP, BLOCK_BYTES, CODES, SCALE_SHIFT, GROUP,
 GROUPS, ZERO_POINT, WIDE, PARTS, SCRATCH, SCRATCH_BYTES) = range(6, 24)  # fmt: skip

PANEL = 48  # rows whose scores with a block are held at once
TILE = 6  # rows of a tile
_INLINE = {"nogil": True, "error_model": "numpy"}

# Parts of a thread's scratch: a block's latents as floats; as codes, with factors and starts; two tiles of products;
# the head's keys of the block by tokens and by elements; its values; scores of a panel; and of every row of the chunk
# the query, the running maximum, sum and mix. Queries are copied because rows of the step lie a multiple of the cache's
# page apart, so that a tile of them would fight for the same lines.
(LATENTS, LATENT_CODES, FACTORS, STARTS, TILES, KEY_ROWS, KEYS, VALUES, SCORES, HEAD_QUERIES, HIGHEST, TOTALS,
 MIXED) = range(13)  # fmt: skip


def scratch_parts(*, rank: int, nope: int, rope: int, value: int, rows: int) -> list[int]:
    """Where the parts of a thread's scratch begin, and at last its bytes. rows: of a chunk at most."""
    padded = -(-rank // 128) * 128  # whole groups of any packing
    groups, keys, values = padded // 32, _key_width(nope, rope), _whole_pairs(value)
    sizes = [
        4 * BLOCK * padded,
        2 * BLOCK * padded,
        2 * 4 * BLOCK * groups,
        2 * 4 * BLOCK * groups,
        2 * 4 * TILE * 32,
        4 * BLOCK * keys,
        4 * BLOCK * keys,
        4 * BLOCK * values,
        4 * BLOCK * PANEL,
        4 * rows * whole_vectors(nope + rope),
        4 * rows,
        4 * rows,
        4 * rows * values,
    ]
    return [0, *accumulate(-(-size // 64) * 64 for size in sizes)]


def _whole_pairs(count: int) -> int:
    """Products come two blocks of 16 at a time."""
    return (count + 31) // 32 * 32


def _key_width(nope: int, rope: int) -> int:
    return max(_whole_pairs(nope), whole_vectors(nope + rope))


_pairs_width = njit(**_INLINE)(_whole_pairs)


@njit(**_INLINE)
def _key_floats(op: int) -> int:
    """Floats from one of KEY_ROWS to the next."""
    nope = shared(op, NOPE)
    return max(_pairs_width(nope), (nope + shared(op, ROPE) + 15) // 16 * 16)


@njit(**_INLINE)
def _part(op: int, scratch: int, part: int) -> int:
    return scratch + get_i64(field(op, PARTS) + 8 * part)


@njit(**_INLINE)
def _query_stride(size: int) -> int:
    return (size + 15) // 16 * 64


@njit(**_INLINE)
def _begin_unit(op: int, tile: int, head: int, scratch: int) -> int:
    """The head's queries, and empty maxima, sums and mixes. Returns how many blocks the chunk's last row sees."""
    rows, width = get_i32(tile + 4), _pairs_width(shared(op, VALUE))
    size = shared(op, NOPE) + shared(op, ROPE)
    queries = field(op, QUERIES) + get_i32(tile) * field(op, QUERY_STRIDE) + 4 * size * head
    copies, stride = _part(op, scratch, HEAD_QUERIES), _query_stride(size)
    for row in range(rows):
        copy_bytes(copies + row * stride, queries + row * field(op, QUERY_STRIDE), 4 * size)
    fill_zero(_part(op, scratch, TOTALS), 4 * rows)
    fill_zero(_part(op, scratch, MIXED), 4 * rows * width)
    for row in range(rows):
        put_f32(_part(op, scratch, HIGHEST) + 4 * row, as_f32(-float("inf")))
    return (_first_position(op, tile) + rows - 1) // BLOCK + 1


@njit(**_INLINE)
def _first_position(op: int, tile: int) -> int:
    return get_i32(shared(op, latent.POSITIONS) + 4 * get_i32(tile))


@njit(**_INLINE)
def _tokens_of(op: int, tile: int, number: int) -> int:
    """How many of block `number` the chunk's last row sees: what lies behind them was never written."""
    return min(BLOCK, _first_position(op, tile) + get_i32(tile + 4) - number * BLOCK)


@njit(**_INLINE)
def _take_latents(op: int, tile: int, number: int, scratch: int) -> int:
    """A block's latents as the products read them, zeros for tokens that are not there. Returns the block's address."""
    block = cached_block(op, get_i32(tile + 8), number)
    rank, width, group, groups = shared(op, RANK), shared(op, WIDTH), field(op, GROUP), field(op, GROUPS)
    padded = (rank + 127) // 128 * 128
    count = _tokens_of(op, tile, number)
    for token in range(BLOCK):
        row = _part(op, scratch, LATENTS) + 4 * padded * token
        if token >= count:
            fill_zero(row, 4 * padded)
        else:
            widen_halves(row, block + 2 * width * token, (rank + 15) // 16)
            for place in range(rank, padded):
                put_f32(row + 4 * place, as_f32(0.0))
        if group != 0:
            codes = _part(op, scratch, LATENT_CODES) + group * groups * token
            offset = 4 * groups * token
            for place in range(groups):
                quantise_group(
                    row + 4 * group * place, group, 0, as_f32(1.0), codes + group * place,
                    _part(op, scratch, FACTORS) + offset + 4 * place, _part(op, scratch, STARTS) + offset + 4 * place,
                    field(op, ZERO_POINT), field(op, WIDE) * BLOCK * group * groups,
                    field(op, WIDE) * 4 * BLOCK * groups,
                )  # fmt: skip
    return block


@njit(**_INLINE)
def _products(op: int) -> int:
    """How many pairs of blocks of 16 outputs: those of the keys, then those of the values."""
    return (_pairs_width(shared(op, NOPE)) + _pairs_width(shared(op, VALUE))) // 32


@njit(**_INLINE)
def _weights(op: int, head: int, product: int) -> int:
    keys = _pairs_width(shared(op, NOPE)) // 32
    if product < keys:
        return field(op, KEY_UP) + head * field(op, KEY_STEP) + 2 * product * field(op, BLOCK_BYTES)
    return field(op, VALUE_UP) + head * field(op, VALUE_STEP) + 2 * (product - keys) * field(op, BLOCK_BYTES)


@njit(**_INLINE)
def _second_stride(op: int, product: int) -> int:
    """Bytes from the first block of a pair to the second; 0 where there is none, whose sums nobody reads."""
    keys = _pairs_width(shared(op, NOPE)) // 32
    outputs = shared(op, NOPE) - 32 * product if product < keys else shared(op, VALUE) - 32 * (product - keys)
    return field(op, BLOCK_BYTES) if outputs > 16 else 0


@njit(**_INLINE)
def _spread(op: int, product: int, token: int, rows: int, scratch: int) -> None:
    """A tile's sums (rows x 32) to their columns of the keys or values of tokens `token` on."""
    keys = _pairs_width(shared(op, NOPE)) // 32
    if product < keys:
        stride = 4 * _key_floats(op)
        target = _part(op, scratch, KEY_ROWS) + token * stride + 128 * product
    else:
        stride = 4 * _pairs_width(shared(op, VALUE))
        target = _part(op, scratch, VALUES) + token * stride + 128 * (product - keys)
    tile = _part(op, scratch, TILES)
    for row in range(rows):
        store_f32(target + row * stride, load_f32(tile + 128 * row))
        store_f32(target + row * stride + 64, load_f32(tile + 128 * row + 64))


@njit(**_INLINE)
def _add_rest(op: int, rows: int, scratch: int) -> None:
    tile = _part(op, scratch, TILES)
    for place in range(0, 128 * rows, 64):
        store_f32(tile + place, add(load_f32(tile + place), load_f32(tile + 128 * TILE + place)))


@njit(**_INLINE)
def _finish_keys(op: int, block: int, count: int, scratch: int) -> None:
    """The rotated part behind each token's key, then keys by elements: a lane is a token."""
    rank, nope, rope, width = shared(op, RANK), shared(op, NOPE), shared(op, ROPE), shared(op, WIDTH)
    stride, rows = 4 * _key_floats(op), _part(op, scratch, KEY_ROWS)
    wide = _part(op, scratch, LATENTS)  # its latents have been used
    for token in range(count):
        first = rank // 16 * 16
        widen_halves(wide, block + 2 * width * token + 2 * first, (width - first) // 16)
        copy_bytes(rows + token * stride + 4 * nope, wide + 4 * (rank - first), 4 * rope)
    keys = _part(op, scratch, KEYS)
    for element in range(0, nope + rope, 16):
        for half in range(2):
            transpose_16(rows + 16 * half * stride + 4 * element, stride, keys + 128 * element + 64 * half, 128)


@njit(**_INLINE)
def _attend_block(op: int, tile: int, number: int, scratch: int) -> None:
    """All rows of the chunk that see a token of the block."""
    rows = get_i32(tile + 4)
    row = max(0, number * BLOCK - _first_position(op, tile))
    while row < rows:
        count = min(PANEL, rows - row)
        _attend_panel(op, tile, number, row, count, scratch)
        row += count


@njit(**_INLINE)
def _attend_panel(op: int, tile: int, number: int, row: int, rows: int, scratch: int) -> None:
    first, start = get_i32(tile), _first_position(op, tile)
    size, width = shared(op, NOPE) + shared(op, ROPE), _pairs_width(shared(op, VALUE))
    stride = _query_stride(size)
    queries = _part(op, scratch, HEAD_QUERIES) + row * stride
    scores, mixed = _part(op, scratch, SCORES), _part(op, scratch, MIXED) + 4 * width * row
    highest, totals = _part(op, scratch, HIGHEST) + 4 * row, _part(op, scratch, TOTALS) + 4 * row
    keys, values = _part(op, scratch, KEYS), _part(op, scratch, VALUES)
    count = _tokens_of(op, tile, number)
    _score(keys, size, queries, stride, rows, scores)
    for place in range(rows):
        position = start + row + place
        seen = EVERY_TOKEN >> max(0, BLOCK - 1 - (position - number * BLOCK))
        chosen = latent.chosen_of(op, first + row + place, position)
        if chosen != 0:
            seen &= get_i32(chosen + 4 * number)
        softmax_seen(scores + 4 * BLOCK * place, seen, highest + 4 * place, totals + 4 * place,
                     mixed + 4 * width * place, width // 16)  # fmt: skip
    _mix(values, width, scores, rows, count, mixed)


@njit(**_INLINE)
def _score(keys: int, size: int, queries: int, stride: int, rows: int, scores: int) -> None:
    row = 0
    while row < rows:
        x, out = queries + row * stride, scores + 4 * BLOCK * row
        if row + TILE <= rows:
            float_tile(0, 6, 2, keys, 64, 128, size, x, stride, 4, out, 128, 64, 0, 0)
            row += TILE
        else:
            float_tile(0, 1, 2, keys, 64, 128, size, x, stride, 4, out, 128, 64, 0, 0)
            row += 1


@njit(**_INLINE)
def _mix(values: int, width: int, shares: int, rows: int, tokens: int, mixed: int) -> None:
    row = 0
    stride = 4 * width
    while row < rows:
        x, out = shares + 4 * BLOCK * row, mixed + stride * row
        whole = row + TILE <= rows
        for column in range(0, width, 32):
            if whole:
                float_tile(
                    0, 6, 2, values + 4 * column, 64, stride, tokens, x, 128, 4, out + 4 * column, stride, 64, 1, 0
                )
            else:
                float_tile(
                    0, 1, 2, values + 4 * column, 64, stride, tokens, x, 128, 4, out + 4 * column, stride, 64, 1, 0
                )
        row += TILE if whole else 1


@njit(**_INLINE)
def _end_unit(op: int, tile: int, head: int, scratch: int) -> None:
    value = shared(op, VALUE)
    width = _pairs_width(value)
    for row in range(get_i32(tile + 4)):
        mixed = _part(op, scratch, MIXED) + 4 * width * row
        latent.divide_row(mixed, width // 16, get_f32(_part(op, scratch, TOTALS) + 4 * row), mixed)
        out = field(op, OUT) + (get_i32(tile) + row) * field(op, OUT_STRIDE) + 4 * value * head
        copy_bytes(out, mixed, 4 * value)


def _integer_kernel(bits: int, affine: int, steps: int) -> Kernel:
    """steps: of 64 bytes in a group of activations. Only whole numbers are closed over: the cache knows those."""

    @kernel
    def attend_expanded(op: int, me: int) -> None:
        heads = shared(op, HEADS)
        units = get_i64(field(op, STATE) + 8 * STATE_EXPANDED_TILES) * heads
        scratch = field(op, SCRATCH) + me * field(op, SCRATCH_BYTES)
        x, factors, starts = (
            _part(op, scratch, LATENT_CODES),
            _part(op, scratch, FACTORS),
            _part(op, scratch, STARTS),
        )
        target = _part(op, scratch, TILES)
        codes, shift, groups = field(op, CODES), field(op, SCALE_SHIFT), field(op, GROUPS)
        x_stride, group_stride = groups * field(op, GROUP), 4 * groups
        unit = take(op, 1)
        while unit < units:
            tile, head = shared(op, latent.TILES) + 12 * (unit // heads), unit % heads
            for number in range(_begin_unit(op, tile, head, scratch)):
                block = _take_latents(op, tile, number, scratch)
                for product in range(_products(op)):
                    weights, second = _weights(op, head, product), _second_stride(op, product)
                    for token in range(0, BLOCK, TILE):
                        for turn in range(1 + field(op, WIDE)):
                            row = token + turn * BLOCK  # the rest's codes lie behind the first ones
                            xs, fs, ss = x + row * x_stride, factors + row * group_stride, starts + row * group_stride
                            out = target + turn * 128 * TILE
                            if token + TILE <= BLOCK:
                                integer_tile(bits, affine, steps, 6, 2, weights, weights + codes, second, shift, xs,
                                             x_stride, fs, ss, group_stride, groups, out, 128, 0)  # fmt: skip
                            else:
                                integer_tile(bits, affine, steps, 2, 2, weights, weights + codes, second, shift, xs,
                                             x_stride, fs, ss, group_stride, groups, out, 128, 0)  # fmt: skip
                            if turn == 1:
                                _add_rest(op, TILE, scratch)
                        _spread(op, product, token, min(TILE, BLOCK - token), scratch)
                _finish_keys(op, block, _tokens_of(op, tile, number), scratch)
                _attend_block(op, tile, number, scratch)
            _end_unit(op, tile, head, scratch)
            unit = take(op, 1)

    return attend_expanded


def _float_kernel(kind: int) -> Kernel:
    """kind: of the weights, as `float_tile` numbers them."""

    @kernel
    def attend_expanded(op: int, me: int) -> None:
        heads = shared(op, HEADS)
        units = get_i64(field(op, STATE) + 8 * STATE_EXPANDED_TILES) * heads
        scratch = field(op, SCRATCH) + me * field(op, SCRATCH_BYTES)
        x, target, steps = _part(op, scratch, LATENTS), _part(op, scratch, TILES), field(op, GROUPS)
        x_stride, x_step = 4 * ((shared(op, RANK) + 127) // 128 * 128), 8 if kind == 2 else 4
        unit = take(op, 1)
        while unit < units:
            tile, head = shared(op, latent.TILES) + 12 * (unit // heads), unit % heads
            for number in range(_begin_unit(op, tile, head, scratch)):
                block = _take_latents(op, tile, number, scratch)
                for product in range(_products(op)):
                    weights, second = _weights(op, head, product), _second_stride(op, product)
                    for token in range(0, BLOCK, TILE):
                        xs = x + token * x_stride
                        if token + TILE <= BLOCK:
                            float_tile(
                                kind, 6, 2, weights, second, 64, steps, xs, x_stride, x_step, target, 128, 64, 0, 0
                            )
                        else:
                            float_tile(
                                kind, 2, 2, weights, second, 64, steps, xs, x_stride, x_step, target, 128, 64, 0, 0
                            )
                        _spread(op, product, token, min(TILE, BLOCK - token), scratch)
                _finish_keys(op, block, _tokens_of(op, tile, number), scratch)
                _attend_block(op, tile, number, scratch)
            _end_unit(op, tile, head, scratch)
            unit = take(op, 1)

    return attend_expanded


@cache
def expanded_kernel(packing: Packing) -> Kernel:
    """The kernel for k_up and v_up of a packing."""
    if not packing.is_integer:
        return _float_kernel(2 if packing.kind == "bf16" else 0)
    steps = activation_group(packing) // packing.inputs_a_step
    return _integer_kernel(4 if packing.kind == "int4" else 8, int(packing.affine), steps)
