"""Intrinsics of latent attention: products along cached tokens, transposition, and choices by bit masks."""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from deepseek.kernels.halves import widened_half
from deepseek.kernels.memory import as_f32, get_f32, put_f32
from deepseek.kernels.tiles import Loop, at_multiple
from deepseek.kernels.vectors import (
    LANES,
    V_F16,
    V_F32,
    F32x16,
    add,
    exp,
    first_lane,
    i1,
    i16,
    i32,
    i64,
    llvm_call,
    load,
    load_f32,
    max_lane,
    maximum,
    mul,
    splat_f32,
    store,
    store_f32,
    sub,
    sum_lanes,
)

_INLINE = {"nogil": True, "error_model": "numpy"}
EVERY_TOKEN = 0xFFFFFFFF  # the mask of a whole block


def _shuffled(b: ir.IRBuilder, x: ir.Value, y: ir.Value, mask: list[int]) -> ir.Value:
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(i32, len(mask)), mask))


def _sums_of_lanes(b: ir.IRBuilder, vectors: list[ir.Value]) -> ir.Value:
    """16 vectors to one: lane i is the sum over the lanes of vector i, by the very tree of `vectors.sum_lanes`."""
    half = LANES // 2
    while half:
        # Each vector holds LANES / (2 half) running trees of 2 half lanes; two vectors become one, trees in order.
        starts = range(0, LANES, 2 * half)
        low = [first + start + lane for first in (0, LANES) for start in starts for lane in range(half)]
        high = [place + half for place in low]
        vectors = [
            b.fadd(_shuffled(b, x, y, low), _shuffled(b, x, y, high))
            for x, y in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        half //= 2
    return vectors[0]


@intrinsic(prefer_literal=True)
def dot_tile(
    typingctx: Any, kind: Any, tokens: Any, token_stride: Any, x: Any, x_stride: Any, vectors: Any, out: Any,
    out_stride: Any,
) -> Any:  # fmt: skip
    """out (4 rows, 4 floats each) = x (4 rows of floats) @ tokens.T (4 rows): an element a lane, summed by a tree.

    Literal kind: of the tokens, 0 floats, 1 halves. vectors: of 16 elements in a row, at least 1.
    """
    signature = types.void(kind, *[types.int64] * 7)
    halves = kind.literal_value == 1

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        _, tokens, token_stride, x, x_stride, vectors, out, out_stride = args
        loop = Loop(b, vectors, [ir.Constant(V_F32, [0.0] * LANES)] * LANES)
        token_offset = b.mul(loop.index, ir.Constant(i64, 2 * LANES if halves else 4 * LANES))
        offset = b.mul(loop.index, ir.Constant(i64, 4 * LANES))
        places = [b.add(at_multiple(b, tokens, token_stride, n), token_offset) for n in range(4)]
        keys = [widened_half(b, load(b, at, V_F16)) if halves else load(b, at, V_F32) for at in places]
        totals = list(loop.carried)
        for m in range(4):
            value = load(b, b.add(at_multiple(b, x, x_stride, m), offset), V_F32)
            for n in range(4):
                totals[4 * m + n] = llvm_call(b, "llvm.fma.v16f32", V_F32, [keys[n], value, totals[4 * m + n]])
        loop.end(totals)
        sums = _sums_of_lanes(b, totals)
        for m in range(4):
            store(b, _shuffled(b, sums, sums, list(range(4 * m, 4 * m + 4))), at_multiple(b, out, out_stride, m))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def transpose_16(typingctx: Any, source: Any, source_stride: Any, target: Any, target_stride: Any) -> Any:
    """16 rows of 16 floats to 16 columns."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        source, source_stride, target, target_stride = args
        rows = [load(b, at_multiple(b, source, source_stride, n), V_F32) for n in range(LANES)]
        step = LANES // 2
        while step:
            low = [lane + (LANES - step if lane & step else 0) for lane in range(LANES)]
            high = [lane + (LANES if lane & step else step) for lane in range(LANES)]
            for n in range(LANES):
                if not n & step:
                    pair = rows[n], rows[n + step]
                    rows[n], rows[n + step] = _shuffled(b, *pair, low), _shuffled(b, *pair, high)
            step //= 2
        for n in range(LANES):
            store(b, rows[n], at_multiple(b, target, target_stride, n))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


@intrinsic
def where_bits(typingctx: Any, bits: Any, x: Any, y: Any) -> Any:
    """x in the lanes whose bit (of the lowest 16) is set, else y."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        mask = b.bitcast(b.trunc(args[0], i16), ir.VectorType(i1, LANES))
        return b.select(mask, args[1], args[2])

    return F32x16(types.int64, F32x16, F32x16), codegen


@intrinsic
def widen_halves(typingctx: Any, target: Any, source: Any, vectors: Any) -> Any:
    """16 * vectors halves to floats; vectors is at least 1."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        target, source, vectors = args
        loop = Loop(b, vectors, [])
        value = load(b, b.add(source, b.mul(loop.index, ir.Constant(i64, 2 * LANES))), V_F16)
        store(b, widened_half(b, value), b.add(target, b.mul(loop.index, ir.Constant(i64, 4 * LANES))))
        loop.end([])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), codegen


@njit(**_INLINE)
def softmax_seen(scores: int, seen: int, highest: int, total: int, mixed: int, vectors: int) -> None:
    """Scores of one query with a block to unnormalised probabilities, in place; bit i of `seen`: key i takes part.

    highest, total: addresses of the running maximum and sum; `mixed`, the running mix of so many vectors, is brought
    to the new maximum.
    """
    zero, nothing = splat_f32(as_f32(0.0)), splat_f32(as_f32(-float("inf")))
    if seen & EVERY_TOKEN == 0:
        store_f32(scores, zero)
        store_f32(scores + 64, zero)
        return
    before = get_f32(highest)
    first = where_bits(seen, load_f32(scores), nothing)
    second = where_bits(seen >> 16, load_f32(scores + 64), nothing)
    top = max(before, max_lane(maximum(first, second)))
    high = splat_f32(as_f32(top))
    first = where_bits(seen, exp(sub(first, high)), zero)
    second = where_bits(seen >> 16, exp(sub(second, high)), zero)
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
