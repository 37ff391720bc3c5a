"""Register tiles: the innermost loops of every matrix product, generated for a literal number of rows and blocks.

m rows of activations times n blocks of 16 outputs; the running sums of all m x n vectors stay in registers. For each
output the order of operations is fixed (ascending inputs; int32 exact within a group, then one fused multiply-add a
group), so its bits depend neither on the tile it was computed in nor on the thread.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from deepseek.kernels.halves import widened_half
from deepseek.kernels.tier import TIER
from deepseek.kernels.vectors import (
    LANES,
    V_F16,
    V_F32,
    V_I32,
    f32,
    i8,
    i16,
    i32,
    i64,
    llvm_call,
    load,
    prefetch,
    splat,
    store,
)

_V64 = ir.VectorType(i8, 64)


def _constant(value: int) -> ir.Constant:
    return ir.Constant(i64, value)


def at_multiple(b: ir.IRBuilder, base: ir.Value, stride: ir.Value, times: int) -> ir.Value:
    return b.add(base, b.mul(stride, _constant(times))) if times else base


def _zeros() -> ir.Constant:
    return ir.Constant(V_F32, [0.0] * LANES)


def _dot4(b: ir.IRBuilder, total: ir.Value, codes: ir.Value, x: ir.Value, bits: int) -> ir.Value:
    """total + the four products of each lane; codes unsigned bytes, x signed bytes of at most 127."""
    if TIER == "avx512":
        return llvm_call(b, "llvm.x86.avx512.vpdpbusd.512", V_I32, [total, codes, x])
    if TIER == "avx2":
        return b.add(total, _dot4_avx2(b, codes, x, bits))
    codes, x = b.bitcast(codes, V_I32), b.bitcast(x, V_I32)
    low_byte = ir.Constant(V_I32, [0xFF] * LANES)
    for byte in range(4):
        up, down = (ir.Constant(V_I32, [bits] * LANES) for bits in (24 - 8 * byte, 8 * byte))
        code = b.and_(b.lshr(codes, down), low_byte)
        value = b.ashr(b.shl(x, up), ir.Constant(V_I32, [24] * LANES))
        total = b.add(total, b.mul(code, value))
    return total


def _dot4_avx2(b: ir.IRBuilder, codes: ir.Value, x: ir.Value, bits: int) -> ir.Value:
    """vpmaddubsw adds two products in 16 bits and saturates: codes of 8 bits go in as their lower 7 and their top."""
    v32, v16s, v8i = ir.VectorType(i8, 32), ir.VectorType(i16, 16), ir.VectorType(i32, 8)
    ones = ir.Constant(v16s, [1] * 16)
    masks = (0x7F, 0x80) if bits == 8 else (0xFF,)
    halves = []
    for half in range(2):
        lanes = ir.Constant(ir.VectorType(i32, 32), list(range(32 * half, 32 * half + 32)))
        codes32, x32 = b.shuffle_vector(codes, codes, lanes), b.shuffle_vector(x, x, lanes)
        total = ir.Constant(v8i, [0] * 8)
        for mask in masks:
            part = b.and_(codes32, ir.Constant(v32, [mask - 256 if mask > 127 else mask] * 32))
            pairs = llvm_call(b, "llvm.x86.avx2.pmadd.ub.sw", v16s, [part, x32])
            total = b.add(total, llvm_call(b, "llvm.x86.avx2.pmadd.wd", v8i, [pairs, ones]))
        halves.append(total)
    return b.shuffle_vector(*halves, ir.Constant(ir.VectorType(i32, 16), list(range(16))))


class Loop:
    """`for index in range(count)` carrying vectors; count is at least 1. Use: body between begin and end."""

    def __init__(self, b: ir.IRBuilder, count: ir.Value, carried: list[ir.Value]) -> None:
        self.b, self.count = b, count
        entry = b.block
        self.loop, self.done = b.append_basic_block("loop"), b.append_basic_block("done")
        b.branch(self.loop)
        b.position_at_end(self.loop)
        self.index = b.phi(i64)
        self.index.add_incoming(_constant(0), entry)
        self.carried = [b.phi(value.type) for value in carried]
        for phi, value in zip(self.carried, carried, strict=True):
            phi.add_incoming(value, entry)

    def end(self, carried: list[ir.Value]) -> None:
        b = self.b
        following = b.add(self.index, _constant(1))
        self.index.add_incoming(following, b.block)
        for phi, value in zip(self.carried, carried, strict=True):
            phi.add_incoming(value, b.block)
        b.cbranch(b.icmp_signed("<", following, self.count), self.loop, self.done)
        b.position_at_end(self.done)


@intrinsic(prefer_literal=True)
def integer_tile(
    typingctx: Any, bits: Any, affine: Any, steps: Any, rows: Any, blocks: Any,
    scales: Any, codes: Any, block_stride: Any, scale_shift: Any, x: Any, x_stride: Any, factors: Any, starts: Any,
    group_stride: Any, groups: Any, out: Any, out_stride: Any, ahead: Any,
) -> Any:  # fmt: skip
    """out (rows x blocks x 16 floats, rows out_stride bytes apart) = x @ weights.T of integer weights. Literals: bits 4
    or 8, affine 0 or 1, steps (of 64 bytes an activation group), rows, blocks.

    scales, codes: addresses in the first block; the next block is block_stride bytes on. scale_shift: log2 of how many
    activation groups share a weight scale. x: int8 activations, rows x_stride bytes apart. factors, starts: of each
    row and group, group_stride bytes from row to row: the activation's scale, and what the integer sum starts from
    (minus the zero point times the sum of x; affine: the scaled sum of x as a float, which the minimum multiplies).
    ahead: how many bytes behind each weight what is used soon lies, which is fetched into the cache meanwhile: a block
    is too short for the processor to foresee the next. With more than two rows, as many rows behind them are fetched.
    """
    shape = tuple(argument.literal_value for argument in (bits, affine, steps, rows, blocks))
    signature = types.void(bits, affine, steps, rows, blocks, *[types.int64] * 13)

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        _integer_tile(b, shape, args[5:])
        return context.get_dummy_value()

    return signature, codegen


def _integer_tile(b: ir.IRBuilder, shape: tuple[int, ...], args: Any) -> None:
    bits, affine, steps, rows, blocks = shape
    scales, codes, block_stride, scale_shift, x, x_stride, factors, starts, group_stride, groups = args[:10]
    out, out_stride, ahead = args[10:]
    width = 64 // LANES * (8 // bits)  # inputs a step
    scale_at = [at_multiple(b, scales, block_stride, n) for n in range(blocks)]
    codes_at = [at_multiple(b, codes, block_stride, n) for n in range(blocks)]
    x_at = [at_multiple(b, x, x_stride, m) for m in range(rows)]
    factor_at = [at_multiple(b, factors, group_stride, m) for m in range(rows)]
    start_at = [at_multiple(b, starts, group_stride, m) for m in range(rows)]
    minimum_offset = b.mul(b.lshr(groups, scale_shift), _constant(2 * LANES)) if affine else None
    loop = Loop(b, groups, [_zeros()] * (rows * blocks))
    group4 = b.mul(loop.index, _constant(4))
    code_offset, x_offset = b.mul(loop.index, _constant(64 * steps)), b.mul(loop.index, _constant(width * steps))
    scale_offset = b.mul(b.lshr(loop.index, scale_shift), _constant(2 * LANES))
    begin = [ir.Constant(V_I32, [0] * LANES)] * rows
    if not affine:
        begin = [splat(b, load(b, b.add(start_at[m], group4), i32, 4), V_I32) for m in range(rows)]
    if rows > 2:
        for m in range(rows):
            for at, row_stride, offset in (
                (x_at[m], x_stride, x_offset),
                (factor_at[m], group_stride, group4),
                (start_at[m], group_stride, group4),
            ):
                prefetch(b, b.add(at_multiple(b, at, row_stride, rows), offset), 3)
    sums = [begin[m] for m in range(rows) for _ in range(blocks)]
    for step in range(steps):
        places = [b.add(b.add(at, code_offset), _constant(64 * step)) for at in codes_at]
        packed = [load(b, place, _V64) for place in places]
        for place in places:
            prefetch(b, b.add(place, ahead))
        for half, unpacked in enumerate(_unpacked(b, packed, bits)):
            for m in range(rows):
                place = b.add(b.add(x_at[m], x_offset), _constant(width * step + 4 * half))
                x4 = b.bitcast(splat(b, load(b, place, i32), V_I32), _V64)
                for n in range(blocks):
                    sums[m * blocks + n] = _dot4(b, sums[m * blocks + n], unpacked[n], x4, bits)
    totals = list(loop.carried)
    for n in range(blocks):
        scale_place = b.add(scale_at[n], scale_offset)
        scale = widened_half(b, load(b, scale_place, V_F16))
        low = widened_half(b, load(b, b.add(scale_place, minimum_offset), V_F16)) if affine else None
        for m in range(rows):
            factor = splat(b, load(b, b.add(factor_at[m], group4), f32, 4), V_F32)
            product = b.sitofp(sums[m * blocks + n], V_F32)
            total = llvm_call(b, "llvm.fma.v16f32", V_F32, [product, b.fmul(scale, factor), totals[m * blocks + n]])
            if affine:
                scaled_sum = splat(b, load(b, b.add(start_at[m], group4), f32, 4), V_F32)
                total = llvm_call(b, "llvm.fma.v16f32", V_F32, [low, scaled_sum, total])
            totals[m * blocks + n] = total
    loop.end(totals)
    _write(b, totals, rows, blocks, out, out_stride, _constant(64))


def _unpacked(b: ir.IRBuilder, packed: list[ir.Value], bits: int) -> list[list[ir.Value]]:
    if bits == 8:
        return [packed]
    # A shift of words and a mask: what LLVM makes of a shift of bytes would need the multipliers.
    mask, four = ir.Constant(_V64, [15] * 64), ir.Constant(V_I32, [4] * LANES)
    upper = [b.bitcast(b.lshr(b.bitcast(value, V_I32), four), _V64) for value in packed]
    return [[b.and_(value, mask) for value in packed], [b.and_(value, mask) for value in upper]]


def _write(
    b: ir.IRBuilder, totals: list[ir.Value], rows: int, blocks: int,
    out: ir.Value, out_stride: ir.Value, out_block: ir.Value,
) -> None:  # fmt: skip
    for m in range(rows):
        for n in range(blocks):
            store(b, totals[m * blocks + n], at_multiple(b, at_multiple(b, out, out_stride, m), out_block, n))


@intrinsic(prefer_literal=True)
def float_tile(
    typingctx: Any, kind: Any, rows: Any, blocks: Any, weights: Any, block_stride: Any, step_stride: Any, steps: Any,
    x: Any, x_stride: Any, x_step: Any, out: Any, out_stride: Any, out_block: Any, start: Any, ahead: Any,
) -> Any:  # fmt: skip
    """out (rows x blocks x 16 floats) = x @ weights.T, everything in float32, one fused multiply-add an input.

    Literals: kind 0 float32, 1 halves, 2 pairs of brain floats (two inputs a step), 3 single brain floats; rows;
    blocks; start 0: sums begin at 0, 1: at what out holds.
    weights: vector n of step k is at weights + n * block_stride + k * step_stride. x: the float of row m and step k is
    at x + m * x_stride + k * x_step (kind 2: the two floats of a step are neighbours). steps is at least 1.
    ahead: as for `integer_tile`.
    """
    shape = tuple(argument.literal_value for argument in (kind, rows, blocks, start))
    signature = types.void(kind, rows, blocks, *[types.int64] * 10, start, types.int64)

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        _float_tile(b, shape, (*args[3:13], args[14]))
        return context.get_dummy_value()

    return signature, codegen


def _float_tile(b: ir.IRBuilder, shape: tuple[int, ...], args: Any) -> None:
    kind, rows, blocks, start = shape
    weights, block_stride, step_stride, steps, x, x_stride, x_step, out, out_stride, out_block, ahead = args
    begin = [_zeros()] * (rows * blocks)
    if start == 1:
        begin = [
            load(b, at_multiple(b, at_multiple(b, out, out_stride, m), out_block, n), V_F32)
            for m in range(rows)
            for n in range(blocks)
        ]
    loop = Loop(b, steps, begin)
    totals = list(loop.carried)
    here = b.add(weights, b.mul(loop.index, step_stride))
    x_here = b.add(x, b.mul(loop.index, x_step))
    places = [at_multiple(b, here, block_stride, n) for n in range(blocks)]
    loaded = [_widened(b, place, kind) for place in places]
    for place in places[:: 1 if kind in (0, 2) else 2]:  # two vectors of halves are one line
        prefetch(b, b.add(place, ahead))
    for part in range(2 if kind == 2 else 1):
        for m in range(rows):
            place = b.add(at_multiple(b, x_here, x_stride, m), _constant(4 * part))
            value = splat(b, load(b, place, f32, 4), V_F32)
            for n in range(blocks):
                arguments = [loaded[n][part], value, totals[m * blocks + n]]
                totals[m * blocks + n] = llvm_call(b, "llvm.fma.v16f32", V_F32, arguments)
    loop.end(totals)
    _write(b, totals, rows, blocks, out, out_stride, out_block)


def _widened(b: ir.IRBuilder, at: ir.Value, kind: int) -> list[ir.Value]:
    """The float32 vectors of one step."""
    if kind == 0:
        return [load(b, at, V_F32)]
    if kind == 1:
        return [widened_half(b, load(b, at, V_F16))]
    sixteen = ir.Constant(V_I32, [16] * LANES)
    if kind == 3:
        return [b.bitcast(b.shl(b.zext(load(b, at, ir.VectorType(i16, LANES)), V_I32), sixteen), V_F32)]
    pairs = load(b, at, V_I32)
    upper = b.and_(pairs, ir.Constant(V_I32, [-65536] * LANES))
    return [b.bitcast(b.shl(pairs, sixteen), V_F32), b.bitcast(upper, V_F32)]
