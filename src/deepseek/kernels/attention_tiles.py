"""Intrinsics of grouped-query attention: products of whole numbers in pairs, exact in int32, and what makes them."""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from deepseek.kernels.tier import TIER
from deepseek.kernels.tiles import Loop, at_multiple
from deepseek.kernels.vectors import (
    LANES,
    V_F32,
    V_I32,
    F32x16,
    I32x16,
    add,
    add_i32,
    bits_as_f32,
    fma,
    i8,
    i16,
    i32,
    i64,
    llvm_call,
    load,
    maximum,
    prefetch,
    shl_i32,
    splat,
    splat_f32,
    splat_i32,
    store,
    sub,
)

_INLINE = {"nogil": True, "error_model": "numpy"}
_V_PAIRS, _V_HALF_PAIRS = ir.VectorType(i16, 2 * LANES), ir.VectorType(i16, LANES)
_ROUNDER = 1.5 * 2.0**23  # added to a float below 2**22 it leaves the nearest whole number in the lowest bits
_ROUNDER_BITS = 0x4B400000


def _constant(value: int) -> ir.Constant:
    return ir.Constant(i64, value)


def _dot2(b: ir.IRBuilder, total: ir.Value, codes: ir.Value, x: ir.Value) -> ir.Value:
    """total + the two products of each lane; all operands V_I32, the latter two of pairs of int16."""
    if TIER == "avx512":
        pairs = [b.bitcast(value, _V_PAIRS) for value in (codes, x)]
        return llvm_call(b, "llvm.x86.avx512.vpdpwssd.512", V_I32, [total, *pairs])
    if TIER == "avx2":
        codes, x = b.bitcast(codes, _V_PAIRS), b.bitcast(x, _V_PAIRS)
        sums = []
        for half in range(2):
            lanes = ir.Constant(ir.VectorType(i32, LANES), list(range(LANES * half, LANES * (half + 1))))
            parts = [b.shuffle_vector(value, value, lanes) for value in (codes, x)]
            sums.append(llvm_call(b, "llvm.x86.avx2.pmadd.wd", ir.VectorType(i32, LANES // 2), parts))
        whole = b.shuffle_vector(*sums, ir.Constant(ir.VectorType(i32, LANES), list(range(LANES))))
        return b.add(total, whole)
    sixteen = ir.Constant(V_I32, [16] * LANES)
    for part in range(2):
        low = [value if part else b.shl(value, sixteen) for value in (codes, x)]
        total = b.add(total, b.mul(*(b.ashr(value, sixteen) for value in low)))
    return total


@intrinsic(prefer_literal=True)
def pair_tile(
    typingctx: Any, code_bytes: Any, rows: Any, vectors: Any, codes: Any, vector_stride: Any, step_stride: Any,
    steps: Any, x: Any, x_stride: Any, out: Any, out_stride: Any, start: Any, ahead: Any, beyond: Any,
) -> Any:  # fmt: skip
    """out (rows x vectors x 16 int32, a row's contiguous) = sums of x times codes, two inputs a step: exact.

    Literals: code_bytes 2 or 1, rows, vectors; start 0: sums begin at 0, 1: at what out holds.
    codes: vector n of step k, 16 pairs of signed codes, is at codes + n * vector_stride + k * step_stride. x: the pair
    of int16 of row m and step k is at x + m * x_stride + 4 * k. steps is at least 1. ahead, beyond: how many
    bytes behind each code lies what is wanted next and after that, which is fetched into the cache meanwhile.
    """
    shape = tuple(argument.literal_value for argument in (code_bytes, rows, vectors, start))
    signature = types.void(code_bytes, rows, vectors, *[types.int64] * 8, start, types.int64, types.int64)

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        _pair_tile(b, shape, (*args[3:11], *args[12:]))
        return context.get_dummy_value()

    return signature, codegen


def _pair_tile(b: ir.IRBuilder, shape: tuple[int, ...], args: Any) -> None:
    code_bytes, rows, vectors, start = shape
    codes, vector_stride, step_stride, steps, x, x_stride, out, out_stride, ahead, beyond = args
    places = [b.add(at_multiple(b, out, out_stride, m), _constant(64 * n)) for m in range(rows) for n in range(vectors)]
    begin = [load(b, place, V_I32) if start else ir.Constant(V_I32, [0] * LANES) for place in places]
    loop = Loop(b, steps, begin)
    totals = list(loop.carried)
    here = b.add(codes, b.mul(loop.index, step_stride))
    code_places = [at_multiple(b, here, vector_stride, n) for n in range(vectors)]
    loaded = [_pairs(b, place, code_bytes) for place in code_places]
    for place in code_places[:: 3 - code_bytes]:  # two vectors of single bytes are one line
        prefetch(b, b.add(place, ahead))
        prefetch(b, b.add(place, beyond))
    x_here = b.add(x, b.mul(loop.index, _constant(4)))
    for m in range(rows):
        pair = splat(b, load(b, at_multiple(b, x_here, x_stride, m), i32), V_I32)
        for n in range(vectors):
            totals[m * vectors + n] = _dot2(b, totals[m * vectors + n], loaded[n], pair)
    loop.end(totals)
    for total, place in zip(totals, places, strict=True):
        store(b, total, place)


def _pairs(b: ir.IRBuilder, at: ir.Value, code_bytes: int) -> ir.Value:
    if code_bytes == 2:
        return load(b, at, V_I32)
    return b.bitcast(b.sext(load(b, at, ir.VectorType(i8, 2 * LANES)), _V_PAIRS), V_I32)


@intrinsic(prefer_literal=True)
def scatter_codes(typingctx: Any, code_bytes: Any, at: Any, pair_stride: Any, second: Any, codes: Any) -> Any:
    """The low bytes of lane l to at + (l // 2) * pair_stride + (l % 2) * second: neighbours may be written by others.

    Literal code_bytes: 2 or 1.
    """
    kind = i16 if code_bytes.literal_value == 2 else i8

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        _, at, pair_stride, second, codes = args
        narrow = b.trunc(codes, ir.VectorType(kind, LANES))
        for lane in range(LANES):
            place = at_multiple(b, at_multiple(b, at, pair_stride, lane // 2), second, lane % 2)
            store(b, b.extract_element(narrow, ir.Constant(i32, lane)), place)
        return context.get_dummy_value()

    return types.void(code_bytes, types.int64, types.int64, types.int64, I32x16), codegen


@intrinsic
def store_i16(typingctx: Any, at: Any, value: Any) -> Any:
    """The low two bytes of each lane."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        store(b, b.trunc(args[1], _V_HALF_PAIRS), args[0])
        return context.get_dummy_value()

    return types.void(types.int64, I32x16), codegen


@intrinsic
def load_i32(typingctx: Any, at: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return load(b, args[0], V_I32)

    return I32x16(types.int64), codegen


@intrinsic
def f32_as_bits(typingctx: Any, a: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.bitcast(args[0], V_I32)

    return I32x16(F32x16), codegen


@intrinsic
def round_scaled(typingctx: Any, x: Any, scale: Any) -> Any:
    """x * scale to the nearest whole number, for products within 2**22; anything for NaN."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        rounder = ir.Constant(V_F32, [_ROUNDER] * LANES)
        shifted = llvm_call(b, "llvm.fma.v16f32", V_F32, [*args, rounder])
        return b.sub(b.bitcast(shifted, V_I32), ir.Constant(V_I32, [_ROUNDER_BITS] * LANES))

    return I32x16(F32x16, F32x16), codegen


@njit(**_INLINE)
def exp2(x: Any) -> Any:
    """2 to the x for x up to 126, within 2 units in the last place, 1 for 0; below -126 and for NaN as at -126."""
    x = maximum(x, splat_f32(-126.0))
    shifted = add(x, splat_f32(_ROUNDER))
    rest = sub(x, sub(shifted, splat_f32(_ROUNDER)))
    y = fma(splat_f32(1.326472731307149e-3), rest, splat_f32(9.671512991189957e-3))
    y = fma(y, rest, splat_f32(5.550733581185341e-2))
    y = fma(y, rest, splat_f32(2.4022242426872253e-1))
    y = fma(y, rest, splat_f32(6.931470036506653e-1))
    y = fma(y, rest, splat_f32(1.0))
    return bits_as_f32(add_i32(f32_as_bits(y), shl_i32(f32_as_bits(shifted), splat_i32(23))))
