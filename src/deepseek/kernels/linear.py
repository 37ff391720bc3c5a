"""Matrix products of packed weights: y = x @ W.T for one row or many, one matrix or one an expert or a head.

A kernel for each packing. Work is cut into units: two blocks of 16 outputs (or the same block of gate and up), times
all rows of a segment, so that weights are read once. Segments are matrices of equal shape that one operation runs
over: one for an ordinary product, one for each active expert or each head.

Segment, SEGMENT_FIELDS int64: weights; weights of the second block's matrix (gate and up); offsets in bytes into x,
into factors and starts, into out; rows (negative: the operation's own count of rows).
"""

from functools import cache

from numba import njit

from deepseek.kernels.memory import field, get_i64
from deepseek.kernels.plan import PRIVATE_ROWS, STATE, STATE_TEAM, Kernel, end_of_share, kernel, take_share
from deepseek.kernels.tiles import float_tile, integer_tile
from deepseek.kernels.vectors import add, load_f32, mul, silu, store_f32
from deepseek.packing import Packing

# Columns of an operation, see `plan` for the first four.
(SEGMENTS, SEGMENT_COUNT, UNITS, BLOCKS, BLOCK_BYTES, CODES, SCALE_SHIFT, X, X_STRIDE, FACTORS, STARTS, GROUP_STRIDE,
 GROUPS, OUT, OUT_STRIDE, ROWS_SLOT, MODE, BIAS, PRIVATE, PRIVATE_GROUPS, LOW, LOW_GROUPS, SCRATCH, CHUNK,
 SECOND_BIAS) = range(4, 29)  # fmt: skip

STORE, ADD, GATED = range(3)  # what becomes of the sums: out =, out +=, out = silu(gate) * up
SEGMENT_FIELDS = 6
AHEAD = 4  # blocks ahead that are fetched into the cache while one is used
SCRATCH_BYTES = 4096  # a thread's: two tiles of 6 rows of 32 floats

_INLINE = {"nogil": True, "error_model": "numpy"}


@njit(**_INLINE)
def _unit(op: int, unit: int, many: int) -> tuple[int, int, int, int, int, int, int, int]:
    """Of a unit: weights of its first block, bytes from there to its second, its first column, whether there is a
    second block, rows; offsets in bytes into x and into factors and starts; where its results go."""
    units = field(op, UNITS)
    block_bytes = field(op, BLOCK_BYTES)
    segment = field(op, SEGMENTS) + unit // units * (8 * SEGMENT_FIELDS)
    place = unit % units
    if field(op, MODE) == GATED:
        column, both = 16 * place, 1
        weights = get_i64(segment) + place * block_bytes
        stride = get_i64(segment + 8) - get_i64(segment)
    else:
        column, both = 32 * place, int(2 * place + 1 < field(op, BLOCKS))
        weights = get_i64(segment) + 2 * place * block_bytes
        stride = block_bytes * both
    rows = get_i64(segment + 40)
    if rows < 0:
        rows = many
    out = field(op, OUT) + get_i64(segment + 32) + 4 * column
    return weights, stride, column, both, rows, get_i64(segment + 16), get_i64(segment + 24), out


@njit(**_INLINE)
def _next_units(op: int, me: int, share: int, total: int) -> tuple[int, int, int]:
    """The next chunk of units for a member that has come to `share`: the share it is in now, begin, end (-1: none)."""
    team, chunk = max(1, get_i64(field(op, STATE) + 8 * STATE_TEAM)), field(op, CHUNK)
    while share < team:
        begin = take_share(op, me, share, team, total, chunk)
        if begin >= 0:
            return share, begin, min(begin + chunk, end_of_share(me, share, team, total))
        share += 1
    return share, -1, -1


@njit(**_INLINE)
def _finish(op: int, scratch: int, rows: int, column: int, out: int, both: int) -> None:
    """Take a tile's sums (rows x 32 floats) to their place. column: of the first block. both: 1 if there are two."""
    mode, bias, out_stride = field(op, MODE), field(op, BIAS), field(op, OUT_STRIDE)
    second_bias = field(op, SECOND_BIAS) if mode == GATED else bias + 64
    for row in range(rows):
        here = scratch + 128 * row
        first, second = load_f32(here), load_f32(here + 64)
        place = out + row * out_stride
        if bias != 0:
            first = add(first, load_f32(bias + 4 * column))
            if both != 0:
                second = add(second, load_f32(second_bias + 4 * column))
        if mode == GATED:
            store_f32(place, mul(silu(first), second))
        elif mode == ADD:
            store_f32(place, add(load_f32(place), first))
            if both != 0:
                store_f32(place + 64, add(load_f32(place + 64), second))
        else:
            store_f32(place, first)
            if both != 0:
                store_f32(place + 64, second)


@njit(**_INLINE)
def _add_tile(scratch: int, other: int, rows: int) -> None:
    for place in range(0, 128 * rows, 64):
        store_f32(scratch + place, add(load_f32(scratch + place), load_f32(other + place)))


def _integer_kernel(bits: int, affine: int, steps: int) -> Kernel:
    """steps: of 64 bytes in a group of activations. Only whole numbers are closed over: the cache knows those."""

    @kernel
    def linear(op: int, me: int) -> None:
        state = field(op, STATE)
        many = get_i64(state + 8 * field(op, ROWS_SLOT))
        block_bytes, codes, shift = field(op, BLOCK_BYTES), field(op, CODES), field(op, SCALE_SHIFT)
        x_stride, group_stride, groups = field(op, X_STRIDE), field(op, GROUP_STRIDE), field(op, GROUPS)
        x, factors, starts = field(op, X), field(op, FACTORS), field(op, STARTS)
        if get_i64(state) <= PRIVATE_ROWS:
            x += me * field(op, PRIVATE)
            factors += me * field(op, PRIVATE_GROUPS)
            starts += me * field(op, PRIVATE_GROUPS)
        scratch = field(op, SCRATCH) + me * SCRATCH_BYTES
        low, low_groups, out_stride = field(op, LOW), field(op, LOW_GROUPS), field(op, OUT_STRIDE)
        plain = field(op, MODE) == STORE and field(op, BIAS) == 0 and low == 0
        total = field(op, UNITS) * get_i64(field(op, SEGMENT_COUNT))
        share, begin, end = _next_units(op, me, 0, total)
        while begin >= 0:
            for unit in range(begin, end):
                weights, stride, column, both, rows, x_offset, in_groups, out = _unit(op, unit, many)
                direct = plain and both != 0
                row = 0
                while row < rows:
                    left = rows - row
                    count = 4 if left >= 4 else 2 if left >= 2 else 1
                    ahead = AHEAD * block_bytes if row == 0 else 0
                    offset = in_groups + row * group_stride
                    xs, fs, ss = x + x_offset + row * x_stride, factors + offset, starts + offset
                    place = out + row * out_stride
                    target, target_stride = (place, out_stride) if direct else (scratch, 128)
                    turn = 0
                    while True:
                        if count == 4:
                            integer_tile(
                                bits, affine, steps, 4, 2, weights, weights + codes, stride, shift,
                                xs, x_stride, fs, ss, group_stride, groups, target, target_stride, ahead,
                            )  # fmt: skip
                        elif count == 2:
                            integer_tile(
                                bits, affine, steps, 2, 2, weights, weights + codes, stride, shift,
                                xs, x_stride, fs, ss, group_stride, groups, target, target_stride, ahead,
                            )  # fmt: skip
                        else:
                            integer_tile(
                                bits, affine, steps, 1, 2, weights, weights + codes, stride, shift,
                                xs, x_stride, fs, ss, group_stride, groups, target, target_stride, ahead,
                            )  # fmt: skip
                        if low == 0 or turn == 1:
                            break
                        xs, fs, ss, target = xs + low, fs + low_groups, ss + low_groups, scratch + 1024
                        turn = 1
                    if turn == 1:
                        _add_tile(scratch, target, count)
                    if not direct:
                        _finish(op, scratch, count, column, place, both)
                    row += count
            share, begin, end = _next_units(op, me, share, total)

    return linear


def _float_kernel(kind: int) -> Kernel:
    """kind: of the weights, as `float_tile` numbers them."""

    @kernel
    def linear(op: int, me: int) -> None:
        state = field(op, STATE)
        many = get_i64(state + 8 * field(op, ROWS_SLOT))
        block_bytes, x_stride, steps = field(op, BLOCK_BYTES), field(op, X_STRIDE), field(op, GROUPS)
        x = field(op, X)
        if get_i64(state) <= PRIVATE_ROWS:
            x += me * field(op, PRIVATE)
        scratch = field(op, SCRATCH) + me * SCRATCH_BYTES
        x_step = 8 if kind == 2 else 4
        total = field(op, UNITS) * get_i64(field(op, SEGMENT_COUNT))
        share, begin, end = _next_units(op, me, 0, total)
        while begin >= 0:
            for unit in range(begin, end):
                weights, stride, column, both, rows, x_offset, _, out = _unit(op, unit, many)
                row = 0
                while row < rows:
                    left = rows - row
                    count = 6 if left >= 6 else 2 if left >= 2 else 1
                    ahead = AHEAD * block_bytes if row == 0 else 0
                    xs = x + x_offset + row * x_stride
                    if count == 6:
                        float_tile(
                            kind, 6, 2, weights, stride, 64, steps, xs, x_stride, x_step, scratch, 128, 64, 0, ahead
                        )
                    elif count == 2:
                        float_tile(
                            kind, 2, 2, weights, stride, 64, steps, xs, x_stride, x_step, scratch, 128, 64, 0, ahead
                        )
                    else:
                        float_tile(
                            kind, 1, 2, weights, stride, 64, steps, xs, x_stride, x_step, scratch, 128, 64, 0, ahead
                        )
                    _finish(op, scratch, count, column, out + row * field(op, OUT_STRIDE), both)
                    row += count
            share, begin, end = _next_units(op, me, share, total)

    return linear


def activation_group(packing: Packing) -> int:
    """Inputs that share an activation scale: 128 would cost 1 % of perplexity, 32 and 64 about 0.4 %."""
    return min(packing.group, 64)


@cache
def linear_kernel(packing: Packing) -> Kernel:
    """The kernel of a packing."""
    if not packing.is_integer:
        return _float_kernel(2 if packing.kind == "bf16" else 0)
    steps = activation_group(packing) // packing.inputs_a_step
    return _integer_kernel(4 if packing.kind == "int4" else 8, int(packing.affine), steps)
