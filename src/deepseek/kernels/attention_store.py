"""What goes before grouped-query attention: queries and keys are normed and rotated, keys and values go into the cache.

A cached key or value of a head is a vector of whole numbers, codes, with one factor. Attention multiplies codes exactly
in int32, so no order of sums matters, and prompts and single tokens get the same bits from different tiles.

Cache of one layer in one block of tokens, for each key head one after the other (codes of 2 or 1 bytes):
    keys           (width / 2, BLOCK, 2)    a pair of elements of each token
    values         (BLOCK / 2, width, 2)    each element of a pair of tokens
    key factors    (BLOCK)                  float32
    value factors  (BLOCK)
width: the head's size rounded up to whole vectors, codes 0 beyond. Codes of 2 bytes: a key's are as long as
LONGEST (Euclidean), so that its product with a query of the same length fits int32, whatever their size
(Cauchy-Schwarz); the largest of a value's is LARGEST_VALUE. Codes of 1 byte: the largest is LARGEST_BYTE.
"""

import math

from numba import njit

from deepseek.kernels.attention_softmax import SMALLEST
from deepseek.kernels.attention_tiles import round_scaled, scatter_codes
from deepseek.kernels.memory import as_f32, copy_bytes, field, get_f32, get_i32, get_i64, put_f32
from deepseek.kernels.plan import STATE, kernel, take
from deepseek.kernels.rows import norm_factor
from deepseek.kernels.vectors import (
    add,
    fma,
    larger_magnitude,
    largest_magnitude,
    load_f32,
    mul,
    splat_f32,
    store_f32,
    sub,
    sum_lanes,
)

BLOCK = 32  # tokens a cache block
MAX_WIDTH = 256
LONGEST = 32_700.0  # with what rounding adds to a vector of MAX_WIDTH: below 32,767 in every element
LARGEST_VALUE = 8191.0
LARGEST_BYTE = 127.0
_MANY_ROWS = 64  # from here on a thread takes several rows at a time, so that few write the same lines of the cache
_ROWS_AT_ONCE = 16
_INLINE = {"nogil": True, "error_model": "numpy"}

# Columns that all kernels of grouped-query attention share.
(QUERIES, QUERY_STRIDE, HEADS, KEY_HEADS, HEAD_DIM, WIDTH, POOL, BLOCK_BYTES, CACHE_AT, CODE_BYTES, POSITIONS, CHUNKS,
 TABLES, TABLE_STRIDE, OUT, OUT_STRIDE, TILES, WINDOW, SCRATCH, KEYS, KEY_STRIDE, VALUES, VALUE_STRIDE, COSINES,
 SINES, ROTATED, INTERLEAVED, SCALE, QUERY_NORM, KEY_NORM, EPSILON, PARTS, SCRATCH_STRIDE) = range(4, 37)  # fmt: skip
"""QUERIES, KEYS, VALUES: rows of float32 as projected, strides in bytes. CACHE_AT: of this layer in a cache block.
CODE_BYTES: of a cached number. POSITIONS, CHUNKS: int32 of each row. TABLES: int32 block numbers, TABLE_STRIDE bytes a
chunk. TILES: see `attention`. WINDOW: tokens seen back, itself included; 0: all. COSINES, SINES: (positions, pairs)
float32. ROTATED: elements of a head; SCALE, EPSILON: addresses of a float32. QUERY_NORM, KEY_NORM: weights of a head,
or 0. PARTS: room for what single tokens' parts leave for `join`, see `attention.parts_bytes`. SCRATCH_STRIDE: bytes of
SCRATCH that each thread has."""


def head_bytes(width: int, code_bytes: int) -> int:
    """Of one layer, in one block of tokens, for one key head."""
    return 2 * BLOCK * (code_bytes * width + 4)


@njit(**_INLINE)
def head_address(op: int, block: int, head: int) -> int:
    """Of a key head's keys in a cache block."""
    return block + field(op, CACHE_AT) + head * (2 * BLOCK * (field(op, CODE_BYTES) * field(op, WIDTH) + 4))


@njit(**_INLINE)
def values_offset(op: int) -> int:
    """Bytes from a key head's keys to its values, and from those to the factors."""
    return BLOCK * field(op, CODE_BYTES) * field(op, WIDTH)


@njit(**_INLINE)
def cache_block(op: int, chunk: int, position: int) -> int:
    """Address of the cache block that holds `position` of a chunk's sequence."""
    number = get_i32(field(op, TABLES) + chunk * field(op, TABLE_STRIDE) + 4 * (position // BLOCK))
    return field(op, POOL) + number * field(op, BLOCK_BYTES)


@njit(**_INLINE)
def rotate_in_place(head: int, pairs: int, cosines: int, sines: int, interleaved: int) -> None:
    """Rotate 2 * pairs floats: neighbours (0, 1) ... if interleaved, else (0, pairs) ..."""
    first_step, second = (8, 4) if interleaved != 0 else (4, 4 * pairs)
    whole = 0 if interleaved != 0 else pairs // 16 * 16
    for pair in range(0, whole, 16):
        at = head + 4 * pair
        a, b = load_f32(at), load_f32(at + second)
        cosine, sine = load_f32(cosines + 4 * pair), load_f32(sines + 4 * pair)
        store_f32(at, sub(mul(a, cosine), mul(b, sine)))
        store_f32(at + second, add(mul(b, cosine), mul(a, sine)))
    for pair in range(whole, pairs):
        at = head + pair * first_step
        x, y = get_f32(at), get_f32(at + second)
        c, s = get_f32(cosines + 4 * pair), get_f32(sines + 4 * pair)
        put_f32(at, as_f32(as_f32(x * c) - as_f32(y * s)))
        put_f32(at + second, as_f32(as_f32(y * c) + as_f32(x * s)))


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
    """Norm and rotate each row's queries in place; norm and rotate its keys; put keys and values into the cache."""
    rows = get_i64(field(op, STATE))
    scratch = field(op, SCRATCH) + me * field(op, SCRATCH_STRIDE)
    count = _ROWS_AT_ONCE if rows >= _MANY_ROWS else 1
    first = take(op, count)
    while first < rows:
        for row in range(first, min(first + count, rows)):
            _rotate_row(op, row, scratch)
        first = take(op, count)


@njit(**_INLINE)
def _rotate_row(op: int, row: int, scratch: int) -> None:
    position = get_i32(field(op, POSITIONS) + 4 * row)
    pairs, size = field(op, ROTATED) // 2, 4 * field(op, HEAD_DIM)
    cosines, sines = field(op, COSINES) + 4 * pairs * position, field(op, SINES) + 4 * pairs * position
    queries = field(op, QUERIES) + row * field(op, QUERY_STRIDE)
    for head in range(field(op, HEADS)):
        _norm_head(op, queries + head * size, field(op, QUERY_NORM))
        rotate_in_place(queries + head * size, pairs, cosines, sines, field(op, INTERLEAVED))
    keys = field(op, KEYS) + row * field(op, KEY_STRIDE)
    values = field(op, VALUES) + row * field(op, VALUE_STRIDE)
    block = cache_block(op, get_i32(field(op, CHUNKS) + 4 * row), position)
    for head in range(field(op, KEY_HEADS)):
        _norm_head(op, keys + head * size, field(op, KEY_NORM))
        rotate_in_place(keys + head * size, pairs, cosines, sines, field(op, INTERLEAVED))
        _store_head(op, head_address(op, block, head), position % BLOCK, keys + head * size, values + head * size,
                    scratch)  # fmt: skip


@njit(**_INLINE)
def _store_head(op: int, target: int, slot: int, key: int, value: int, scratch: int) -> None:
    width, code_bytes = field(op, WIDTH), field(op, CODE_BYTES)
    padded_head(op, key, scratch)
    values_at = target + values_offset(op)
    factors = values_at + values_offset(op)
    if code_bytes == 2:
        scale = _scale_and_factor(euclidean_length(scratch, width), LONGEST, factors + 4 * slot)
        for place in range(0, width, 16):
            codes = round_scaled(load_f32(scratch + 4 * place), splat_f32(scale))
            scatter_codes(2, target + 2 * BLOCK * place + 4 * slot, 4 * BLOCK, 2, codes)
    else:
        scale = _scale_and_factor(_largest(scratch, width), LARGEST_BYTE, factors + 4 * slot)
        for place in range(0, width, 16):
            codes = round_scaled(load_f32(scratch + 4 * place), splat_f32(scale))
            scatter_codes(1, target + BLOCK * place + 2 * slot, 2 * BLOCK, 1, codes)
    padded_head(op, value, scratch)
    most = LARGEST_VALUE if code_bytes == 2 else LARGEST_BYTE
    scale = _scale_and_factor(_largest(scratch, width), most, factors + 4 * (BLOCK + slot))
    row = values_at + code_bytes * (2 * width * (slot // 2) + slot % 2)
    for place in range(0, width, 16):
        codes = round_scaled(load_f32(scratch + 4 * place), splat_f32(scale))
        if code_bytes == 2:
            scatter_codes(2, row + 4 * place, 8, 4, codes)
        else:
            scatter_codes(1, row + 2 * place, 4, 2, codes)


@njit(**_INLINE)
def padded_head(op: int, source: int, target: int) -> None:
    """A head's floats in whole vectors."""
    copy_bytes(target, source, 4 * field(op, HEAD_DIM))
    for place in range(field(op, HEAD_DIM), field(op, WIDTH)):
        put_f32(target + 4 * place, as_f32(0.0))


@njit(**_INLINE)
def euclidean_length(source: int, width: int) -> float:
    total = splat_f32(as_f32(0.0))
    for place in range(0, width, 16):
        value = load_f32(source + 4 * place)
        total = fma(value, value, total)
    return as_f32(math.sqrt(float(sum_lanes(total))))


@njit(**_INLINE)
def _largest(source: int, width: int) -> float:
    top = splat_f32(as_f32(0.0))
    for place in range(0, width, 16):
        top = larger_magnitude(load_f32(source + 4 * place), top)
    return largest_magnitude(top)


@njit(**_INLINE)
def _scale_and_factor(size: float, most: float, factor_at: int) -> float:
    """What makes `most` of `size`; the factor that undoes it is put where it belongs, NaN if size is."""
    put_f32(factor_at, as_f32(size / most))
    return scale_to(size, most)


@njit(**_INLINE)
def scale_to(size: float, most: float) -> float:
    """most / size; 0 for a size so small that there is nothing to tell."""
    return as_f32(most / size) if size > SMALLEST else as_f32(0.0)
