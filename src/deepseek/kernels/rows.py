"""Row-wise work: embedding look-up, RMSNorm and the quantisation of activations.

Activations are quantised per token and group: factor = largest magnitude / 127, code = x / factor to the nearest, ties
to even. A second set of codes may hold what the first left over (`LOW`), which makes 16 bits in all. Beside the codes
stands what a group's integer sum starts from, see `tiles.integer_tile`.
"""

from typing import Any

from numba import njit

from deepseek.kernels.memory import as_f32, field, get_f16, get_f32, get_i32, get_i64, get_u8, put_f32, put_i32
from deepseek.kernels.plan import PRIVATE_ROWS, STATE, kernel, take
from deepseek.kernels.vectors import (
    add,
    add_i32,
    fma,
    larger_magnitude,
    largest_magnitude,
    load_f32,
    mul,
    rounded,
    splat_f32,
    store_f32,
    store_i8,
    sub,
    sum_lanes,
    sum_lanes_i32,
    to_i32,
)

_INLINE = {"nogil": True, "error_model": "numpy"}
ROWS_A_CHUNK = 4
_SMALLEST_STEP = 2.0**-126  # below, the inverse of a step may be infinite: such a group counts as zeros

# Columns of `prepare`, after the first four of every row.
(SOURCE, SOURCE_STRIDE, INPUTS, ROWS_SLOT, ROW_INDEX, NORM, EPSILON, FLOATS, FLOATS_STRIDE, CODES, CODES_STRIDE,
 FACTORS, STARTS, GROUP_STRIDE, GROUP, GROUPS, ZERO_POINT, PRIVATE_FLOATS, PRIVATE_CODES, PRIVATE_GROUPS, LOW,
 LOW_GROUPS, ALWAYS_SHARED) = range(4, 27)  # fmt: skip
"""SOURCE: rows of float32, SOURCE_STRIDE bytes apart. ROW_INDEX: address of int32 row numbers to gather, or 0.
NORM: weights of an RMSNorm, or 0; EPSILON: address of its float32. FLOATS: where normed rows go, or 0. CODES ...: where
quantised ones go, or 0. GROUP: inputs a group; ZERO_POINT: of the weights, -1 for affine ones. LOW, LOW_GROUPS: from
the first codes (factors) to those of the rest, or 0. ALWAYS_SHARED: 1 if rows are divided however few they are."""


@njit(**_INLINE)
def _factor_of_row(source: int, inputs: int, epsilon: float) -> float:
    """1 / sqrt(mean of squares + epsilon). Inputs in whole vectors, zero beyond the real ones; four running sums."""
    first = splat_f32(0.0)
    second, third, fourth = first, first, first
    vectors = (inputs + 15) // 16
    place = 0
    while place + 4 <= vectors:
        at = source + 64 * place
        a, b, c, d = load_f32(at), load_f32(at + 64), load_f32(at + 128), load_f32(at + 192)
        first, second, third, fourth = fma(a, a, first), fma(b, b, second), fma(c, c, third), fma(d, d, fourth)
        place += 4
    while place < vectors:
        a = load_f32(source + 64 * place)
        first = fma(a, a, first)
        place += 1
    total = sum_lanes(add(add(first, second), add(third, fourth)))
    return norm_factor(total, inputs, epsilon)


@njit(**_INLINE)
def norm_factor(total: float, count: int, epsilon: float) -> float:
    """RMSNorm's factor, given the sum of squares: 1 / sqrt(total / count + epsilon)."""
    return as_f32(1.0 / (float(total) / count + float(epsilon)) ** 0.5)


@njit(**_INLINE)
def quantise_group(
    source: int, group: int, weight: int, factor: float, codes: int, factors: int, starts: int,
    zero_point: int, low: int, low_groups: int,
) -> None:  # fmt: skip
    """One group of 32 or 64 floats (times weight and factor if weight is not 0) to codes, factor and start; if `low`
    is not 0, what they leave over likewise. The floats stay in registers meanwhile."""
    a, b = _scaled(source, weight, factor, 0), _scaled(source, weight, factor, 64)
    c, d = a, b
    if group == 64:
        c, d = _scaled(source, weight, factor, 128), _scaled(source, weight, factor, 192)
    step = _quantise(a, b, c, d, group, codes, factors, starts, zero_point)
    if low != 0:
        inverse, unit = splat_f32(_inverse(step)), splat_f32(step)
        a, b = _left(a, inverse, unit), _left(b, inverse, unit)
        c, d = _left(c, inverse, unit), _left(d, inverse, unit)
        _quantise(a, b, c, d, group, codes + low, factors + low_groups, starts + low_groups, zero_point)


@njit(**_INLINE)
def _scaled(source: int, weight: int, factor: float, offset: int) -> Any:
    value = load_f32(source + offset)
    if weight != 0:
        return mul(load_f32(weight + offset), mul(value, splat_f32(factor)))
    return value


@njit(**_INLINE)
def _inverse(step: float) -> float:
    return as_f32(1.0 / float(step)) if step >= _SMALLEST_STEP else as_f32(0.0)


@njit(**_INLINE)
def _left(value: Any, inverse: Any, unit: Any) -> Any:
    """What codes of step `unit` leave of a vector: exact but for the last rounding."""
    return fma(sub(splat_f32(as_f32(0.0)), rounded(mul(value, inverse))), unit, value)


@njit(**_INLINE)
def _quantise(
    a: Any, b: Any, c: Any, d: Any, group: int, codes: int, factors: int, starts: int, zero_point: int
) -> float:
    """Codes, factor and start of two vectors (c and d say nothing new) or four; returns the factor."""
    largest = larger_magnitude(a, larger_magnitude(b, larger_magnitude(c, larger_magnitude(d, splat_f32(0.0)))))
    step = as_f32(float(largest_magnitude(largest)) / 127.0)
    inverse = splat_f32(_inverse(step))
    first, second = to_i32(rounded(mul(a, inverse))), to_i32(rounded(mul(b, inverse)))
    store_i8(codes, first)
    store_i8(codes + 16, second)
    total = add_i32(first, second)
    if group == 64:
        third, fourth = to_i32(rounded(mul(c, inverse))), to_i32(rounded(mul(d, inverse)))
        store_i8(codes + 32, third)
        store_i8(codes + 48, fourth)
        total = add_i32(total, add_i32(third, fourth))
    put_f32(factors, step)
    count = sum_lanes_i32(total)
    if zero_point < 0:
        put_f32(starts, as_f32(float(step) * count))
    else:
        put_i32(starts, -zero_point * count)
    return step


@kernel
def prepare(op: int, me: int) -> None:
    """Gather, norm and quantise rows: whatever of the three the operation asks for."""
    state = field(op, STATE)
    rows = get_i64(state + 8 * field(op, ROWS_SLOT))
    floats, codes, factors, starts = field(op, FLOATS), field(op, CODES), field(op, FACTORS), field(op, STARTS)
    private = get_i64(state) <= PRIVATE_ROWS and field(op, ALWAYS_SHARED) == 0
    begin, end = 0, rows
    if private:
        floats += me * field(op, PRIVATE_FLOATS)
        codes += me * field(op, PRIVATE_CODES)
        factors += me * field(op, PRIVATE_GROUPS)
        starts += me * field(op, PRIVATE_GROUPS)
    else:
        begin = take(op, ROWS_A_CHUNK)
        end = min(begin + ROWS_A_CHUNK, rows)
    while begin < rows:
        for row in range(begin, end):
            _prepare_row(op, row, floats, codes, factors, starts)
        if private:
            break
        begin = take(op, ROWS_A_CHUNK)
        end = min(begin + ROWS_A_CHUNK, rows)


@njit(**_INLINE)
def _prepare_row(op: int, row: int, floats: int, codes: int, factors: int, starts: int) -> None:
    origin = row
    if field(op, ROW_INDEX) != 0:
        origin = get_i32(field(op, ROW_INDEX) + 4 * row)
    source = field(op, SOURCE) + origin * field(op, SOURCE_STRIDE)
    weight, inputs = field(op, NORM), field(op, INPUTS)
    factor = as_f32(1.0)
    if weight != 0:
        factor = _factor_of_row(source, inputs, get_f32(field(op, EPSILON)))
    if field(op, FLOATS) != 0:
        target = floats + row * field(op, FLOATS_STRIDE)
        for place in range((inputs + 15) // 16):
            store_f32(target + 64 * place, _scaled(source, weight, factor, 64 * place))
    if field(op, CODES) != 0:
        group, stride = field(op, GROUP), field(op, GROUP_STRIDE)
        at = codes + row * field(op, CODES_STRIDE)
        for number in range(field(op, GROUPS)):
            offset = 4 * group * number
            quantise_group(
                source + offset, group, weight + offset if weight != 0 else 0, factor, at + group * number,
                factors + row * stride + 4 * number, starts + row * stride + 4 * number,
                field(op, ZERO_POINT), field(op, LOW), field(op, LOW_GROUPS),
            )  # fmt: skip


# Columns of `embed`: table, bytes of a row, its type (ROW_TYPES), inputs, token ids (int32), out and its stride.
EMBED_TABLE, EMBED_ROW_BYTES, EMBED_TYPE, EMBED_INPUTS, EMBED_TOKENS, EMBED_OUT, EMBED_OUT_STRIDE = range(4, 11)
ROW_TYPES = {"f32": 0, "f16": 1, "bf16": 2, "q4_0": 3, "q4_1": 4, "q8_0": 5}


@kernel
def embed(op: int, me: int) -> None:
    """The embedding of each token, widened to float32."""
    rows = get_i64(field(op, STATE))
    inputs, kind = field(op, EMBED_INPUTS), field(op, EMBED_TYPE)
    begin = take(op, ROWS_A_CHUNK)
    while begin < rows:
        for row in range(begin, min(begin + ROWS_A_CHUNK, rows)):
            token = get_i32(field(op, EMBED_TOKENS) + 4 * row)
            source = field(op, EMBED_TABLE) + token * field(op, EMBED_ROW_BYTES)
            _widen(source, kind, inputs, field(op, EMBED_OUT) + row * field(op, EMBED_OUT_STRIDE))
        begin = take(op, ROWS_A_CHUNK)


@njit(**_INLINE)
def _widen(source: int, kind: int, inputs: int, out: int) -> None:
    if kind == 0:
        for place in range(inputs):
            put_f32(out + 4 * place, get_f32(source + 4 * place))
    elif kind == 1:
        for place in range(inputs):
            put_f32(out + 4 * place, get_f16(source + 2 * place))
    elif kind == 2:
        for place in range(inputs):
            put_i32(out + 4 * place, (get_u8(source + 2 * place) | get_u8(source + 2 * place + 1) << 8) << 16)
    else:
        _widen_blocks(source, kind, inputs, out)


@njit(**_INLINE)
def _widen_blocks(source: int, kind: int, inputs: int, out: int) -> None:
    """GGUF blocks of 32: Q4_0 (3), Q4_1 (4), Q8_0 (5). In four-bit ones element i + 16 is the high nibble of i."""
    size = 18 if kind == 3 else 20 if kind == 4 else 34
    for block in range(inputs // 32):
        at, to = source + block * size, out + block * 128
        scale = get_f16(at)
        if kind == 5:
            for place in range(32):
                code = get_u8(at + 2 + place)
                put_f32(to + 4 * place, scale * as_f32(code - 256 if code > 127 else code))
        else:
            low = get_f16(at + 2) if kind == 4 else as_f32(0.0)
            zero = 0 if kind == 4 else 8
            codes = at + 4 if kind == 4 else at + 2
            for place in range(16):
                both = get_u8(codes + place)
                put_f32(to + 4 * place, scale * as_f32((both & 15) - zero) + low)
                put_f32(to + 4 * (place + 16), scale * as_f32((both >> 4) - zero) + low)
