"""The lightning indexer of DeepSeek sparse attention (V3.2, arXiv 2512.02556, section 2.1).

A few cheap heads score every earlier token for each row: sum over heads of w * relu(q . k). Rows that see more than
INDEX_TOPK tokens attend to the best INDEX_TOPK alone, of equal scores the earlier ones; their choice is a bit a token.
Few rows share the scoring of one row between threads, many rows are scored by one thread each.
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from deepseek.kernels import latent
from deepseek.kernels.attention_store import BLOCK, rotate_in_place
from deepseek.kernels.latent import (
    CHOSEN,
    CHOSEN_STRIDE,
    INDEX_DIM,
    INDEX_HEADS,
    INDEX_TOPK,
    INDEX_WIDTH,
    cached_block,
    shared,
    store_halves,
)
from deepseek.kernels.latent_tiles import dot_tile
from deepseek.kernels.memory import as_f32, copy_bytes, field, fill_zero, get_f32, get_i32, get_i64, put_f32, put_i32
from deepseek.kernels.plan import STATE, kernel, take
from deepseek.kernels.tiles import Loop
from deepseek.kernels.vectors import (
    LANES,
    V_I32,
    F32x16,
    I32x16,
    fma,
    i32,
    i64,
    load,
    load_f32,
    maximum,
    mul,
    splat,
    splat_f32,
    sum_lanes_i32,
)

# Columns. QUERIES: heads as projected, rotated in place by `store_index`; KEYS, WEIGHTS: as projected, a float32 row
# each. NORM, NORM_BIAS: of the key's LayerNorm; EPSILON: address of a float32. SCORES: of few rows, SCORES_STRIDE bytes
# a row. SCRATCH: see `index_scratch_bytes`.
(QUERIES, QUERY_STRIDE, KEYS, KEY_STRIDE, WEIGHTS, WEIGHT_STRIDE, NORM, NORM_BIAS, EPSILON, SCORES, SCORES_STRIDE,
 SCRATCH, SCRATCH_BYTES) = range(6, 19)  # fmt: skip

FEW_ROWS = 16  # so many are scored together by all threads
BLOCKS_A_UNIT = 16
_INLINE = {"nogil": True, "error_model": "numpy"}


def index_scratch_bytes(heads: int, width: int, tokens: int) -> int:
    """A thread's: the queries of a row, their products with a block, and (many rows) the row's scores."""
    return _whole_tiles(heads) * 4 * (width + BLOCK) + 4 * scores_of(tokens)


def scores_of(tokens: int) -> int:
    """Room for the scores of so many tokens."""
    return -(-tokens // BLOCK) * BLOCK


def _whole_tiles(heads: int) -> int:
    return (heads + 3) // 4 * 4


_tiles_of = njit(**_INLINE)(_whole_tiles)


@intrinsic
def store_order(typingctx: Any, at: Any, value: Any) -> Any:
    """16 floats as int32 that compare in the same order."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        bits = b.bitcast(args[1], V_I32)
        sign = b.ashr(bits, ir.Constant(V_I32, [31] * LANES))
        flipped = b.and_(sign, ir.Constant(V_I32, [0x7FFFFFFF] * LANES))
        b.store(b.xor(bits, flipped), b.inttoptr(args[0], V_I32.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(types.int64, F32x16), codegen


@intrinsic
def count_from(typingctx: Any, at: Any, vectors: Any, least: Any) -> Any:
    """How many of 16 * vectors int32 are at least `least`, lane by lane; vectors is at least 1."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        at, vectors, least = args
        wanted = splat(b, b.trunc(least, i32), V_I32)
        loop = Loop(b, vectors, [ir.Constant(V_I32, [0] * LANES)])
        values = load(b, b.add(at, b.mul(loop.index, ir.Constant(i64, 4 * LANES))), V_I32)
        total = b.add(loop.carried[0], b.zext(b.icmp_signed(">=", values, wanted), V_I32))
        loop.end([total])
        return total

    return I32x16(types.int64, types.int64, types.int64), codegen


@kernel
def store_index(op: int, me: int) -> None:
    """Norm and rotate each row's key into the cache; rotate its queries in place. Pairs are half-split here."""
    rows, size, heads = get_i64(field(op, STATE)), shared(op, INDEX_DIM), shared(op, INDEX_HEADS)
    pairs = shared(op, latent.ROPE) // 2
    row = take(op, 1)
    while row < rows:
        position = get_i32(shared(op, latent.POSITIONS) + 4 * row)
        cosines = shared(op, latent.COSINES) + 4 * pairs * position
        sines = shared(op, latent.SINES) + 4 * pairs * position
        for head in range(heads):
            rotate_in_place(
                field(op, QUERIES) + row * field(op, QUERY_STRIDE) + 4 * size * head, pairs, cosines, sines, 0
            )
        key = field(op, KEYS) + row * field(op, KEY_STRIDE)
        _layer_norm(key, size, field(op, NORM), field(op, NORM_BIAS), get_f32(field(op, EPSILON)))
        rotate_in_place(key, pairs, cosines, sines, 0)
        block = cached_block(op, get_i32(shared(op, latent.CHUNKS) + 4 * row), position // BLOCK)
        width = shared(op, INDEX_WIDTH)
        store_halves(key, size, width, block + shared(op, latent.INDEX_AT) + 2 * width * (position % BLOCK))
        row = take(op, 1)


@njit(**_INLINE)
def _layer_norm(at: int, count: int, weight: int, bias: int, epsilon: float) -> None:
    """In float64: a key is short, and this is once a token."""
    total = 0.0
    for place in range(count):
        total += float(get_f32(at + 4 * place))
    mean = total / count
    squares = 0.0
    for place in range(count):
        off = float(get_f32(at + 4 * place)) - mean
        squares += off * off
    factor = 1.0 / (squares / count + float(epsilon)) ** 0.5
    for place in range(count):
        value = as_f32((float(get_f32(at + 4 * place)) - mean) * factor)
        put_f32(at + 4 * place, as_f32(as_f32(value * get_f32(weight + 4 * place)) + get_f32(bias + 4 * place)))


@njit(**_INLINE)
def _is_sparse(op: int, row: int) -> bool:
    return get_i32(shared(op, latent.POSITIONS) + 4 * row) >= shared(op, INDEX_TOPK)


@kernel
def score_index(op: int, me: int) -> None:
    """Of few rows: the order of all tokens that a row sees, a unit a row and a run of blocks."""
    rows = get_i64(field(op, STATE))
    if rows > FEW_ROWS:
        return
    units = (field(op, SCORES_STRIDE) // (4 * BLOCK) + BLOCKS_A_UNIT - 1) // BLOCKS_A_UNIT
    unit = take(op, 1)
    while unit < rows * units:
        row, first = unit // units, unit % units * BLOCKS_A_UNIT
        blocks = get_i32(shared(op, latent.POSITIONS) + 4 * row) // BLOCK + 1
        if _is_sparse(op, row) and first < blocks:
            scratch = field(op, SCRATCH) + me * field(op, SCRATCH_BYTES)
            scores = field(op, SCORES) + row * field(op, SCORES_STRIDE)
            _score_blocks(op, row, first, min(first + BLOCKS_A_UNIT, blocks), scratch, scores)
        unit = take(op, 1)


@kernel
def choose_index(op: int, me: int) -> None:
    """The bits of the chosen tokens of each row that sees more than INDEX_TOPK."""
    rows = get_i64(field(op, STATE))
    row = take(op, 1)
    while row < rows:
        if _is_sparse(op, row):
            tokens = get_i32(shared(op, latent.POSITIONS) + 4 * row) + 1
            scores = field(op, SCORES) + row * field(op, SCORES_STRIDE)
            if rows > FEW_ROWS:
                scratch = field(op, SCRATCH) + me * field(op, SCRATCH_BYTES)
                scores = scratch + _tiles_of(shared(op, INDEX_HEADS)) * 4 * (shared(op, INDEX_WIDTH) + BLOCK)
                _score_blocks(op, row, 0, (tokens + BLOCK - 1) // BLOCK, scratch, scores)
            _choose(scores, tokens, shared(op, INDEX_TOPK), shared(op, CHOSEN) + row * shared(op, CHOSEN_STRIDE))
        row = take(op, 1)


@njit(**_INLINE)
def _score_blocks(op: int, row: int, first: int, end: int, scratch: int, scores: int) -> None:
    heads, size, width = shared(op, INDEX_HEADS), shared(op, INDEX_DIM), shared(op, INDEX_WIDTH)
    whole = _tiles_of(heads)
    products = scratch + whole * 4 * width
    fill_zero(scratch, whole * 4 * width)
    source = field(op, QUERIES) + row * field(op, QUERY_STRIDE)
    for head in range(heads):
        copy_bytes(scratch + 4 * width * head, source + 4 * size * head, 4 * size)
    chunk = get_i32(shared(op, latent.CHUNKS) + 4 * row)
    weights = field(op, WEIGHTS) + row * field(op, WEIGHT_STRIDE)
    for number in range(first, end):
        keys = cached_block(op, chunk, number) + shared(op, latent.INDEX_AT)
        for head in range(0, heads, 4):
            for token in range(0, BLOCK, 4):
                dot_tile(1, keys + 2 * width * token, 2 * width, scratch + 4 * width * head, 4 * width, width // 16,
                         products + 4 * BLOCK * head + 4 * token, 4 * BLOCK)  # fmt: skip
        _join_heads(op, products, weights, heads, scores + 4 * BLOCK * number)


@njit(**_INLINE)
def _join_heads(op: int, products: int, weights: int, heads: int, out: int) -> None:
    zero = splat_f32(as_f32(0.0))
    key_scale = splat_f32(as_f32(1.0 / float(shared(op, INDEX_DIM)) ** 0.5))
    head_scale = as_f32(1.0 / float(heads) ** 0.5)
    for half in range(2):
        total = zero
        for head in range(heads):
            weight = splat_f32(as_f32(get_f32(weights + 4 * head) * head_scale))
            product = mul(load_f32(products + 4 * BLOCK * head + 64 * half), key_scale)
            total = fma(weight, maximum(product, zero), total)
        store_order(out + 64 * half, total)


@njit(**_INLINE)
def _choose(scores: int, tokens: int, most: int, chosen: int) -> None:
    """Bits of the `most` highest of `tokens` scores (in their order's int32), of equal ones the first."""
    lowest = -(1 << 31)
    for token in range(tokens, (tokens + BLOCK - 1) // BLOCK * BLOCK):
        put_i32(scores + 4 * token, lowest)
    vectors = (tokens + 15) // 16
    # The threshold is the highest value that enough scores reach: bit by bit from the top, on values from 0 up.
    threshold = 0
    for bit in range(31, -1, -1):
        candidate = threshold | (1 << bit)
        if sum_lanes_i32(count_from(scores, vectors, candidate + lowest)) >= most:
            threshold = candidate
    threshold += lowest
    equal = most
    if threshold < (1 << 31) - 1:
        equal -= sum_lanes_i32(count_from(scores, vectors, threshold + 1))
    for number in range((tokens + BLOCK - 1) // BLOCK):
        bits = 0
        for place in range(min(BLOCK, tokens - number * BLOCK)):
            score = get_i32(scores + 4 * (number * BLOCK + place))
            if score > threshold:
                bits |= 1 << place
            elif score == threshold and equal > 0:
                bits |= 1 << place
                equal -= 1
        put_i32(chosen + 4 * number, bits)
