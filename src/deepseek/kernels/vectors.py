"""Vectors of 16 lanes as Numba values: `F32x16`, `I32x16`, and what can be done with them.

A vector lives in one AVX-512 register, two of AVX2, four of NEON: LLVM splits it, the bits stay the same. Every
operation is IEEE and exact in order: no fastmath, a fused multiply-add only where `fma` is written, sums over lanes by
a fixed tree.
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model

from deepseek.kernels.halves import narrowed_half, widened_half

LANES = 16

i1, i8, i16, i32, i64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
f16, f32 = ir.HalfType(), ir.FloatType()
V_F32, V_I32, V_F16, V_I16, V_I8 = (ir.VectorType(kind, LANES) for kind in (f32, i32, f16, i16, i8))


class VectorType(types.Type):
    """16 lanes of one element type."""

    def __init__(self, name: str, llvm_type: ir.Type) -> None:
        self.llvm_type = llvm_type
        super().__init__(name=name)


@register_model(VectorType)
class VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: VectorType) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm_type)


F32x16 = VectorType("f32x16", V_F32)
I32x16 = VectorType("i32x16", V_I32)


def splat(b: ir.IRBuilder, x: ir.Value, vector: ir.VectorType) -> ir.Value:
    undef = ir.Constant(vector, ir.Undefined)
    first = b.insert_element(undef, x, ir.Constant(i32, 0))
    return b.shuffle_vector(first, undef, ir.Constant(ir.VectorType(i32, vector.count), [0] * vector.count))


def address(b: ir.IRBuilder, at: ir.Value, kind: ir.Type) -> ir.Value:
    return b.inttoptr(at, kind.as_pointer())


def load(b: ir.IRBuilder, at: ir.Value, kind: ir.Type, align: int = 1) -> ir.Value:
    value = b.load(address(b, at, kind))
    value.align = align
    return value


def store(b: ir.IRBuilder, value: ir.Value, at: ir.Value, align: int = 1) -> None:
    b.store(value, address(b, at, value.type)).align = align


def llvm_call(b: ir.IRBuilder, name: str, result: ir.Type, arguments: list[ir.Value]) -> ir.Value:
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    found = b.module.globals.get(name)
    return b.call(ir.Function(b.module, function, name) if found is None else found, arguments)


def prefetch(b: ir.IRBuilder, at: ir.Value, locality: int = 2) -> None:
    """Into the second-level cache (locality 3: the first). An address that is not mapped does no harm."""
    line = b.inttoptr(at, i8.as_pointer())
    llvm_call(b, "llvm.prefetch.p0", ir.VoidType(), [line, *(ir.Constant(i32, value) for value in (0, locality, 1))])


@intrinsic
def load_f32(typingctx: Any, at: Any) -> Any:
    """16 floats."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return load(b, args[0], V_F32)

    return F32x16(types.int64), codegen


@intrinsic
def load_f16(typingctx: Any, at: Any) -> Any:
    """16 halves, widened."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return widened_half(b, load(b, args[0], V_F16))

    return F32x16(types.int64), codegen


@intrinsic
def load_bf16(typingctx: Any, at: Any) -> Any:
    """16 brain floats, widened."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        wide = b.zext(load(b, args[0], V_I16), V_I32)
        return b.bitcast(b.shl(wide, ir.Constant(V_I32, [16] * LANES)), V_F32)

    return F32x16(types.int64), codegen


@intrinsic
def load_i8(typingctx: Any, at: Any) -> Any:
    """16 signed bytes as int32."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.sext(load(b, args[0], V_I8), V_I32)

    return I32x16(types.int64), codegen


@intrinsic
def load_u8(typingctx: Any, at: Any) -> Any:
    """16 unsigned bytes as int32."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.zext(load(b, args[0], V_I8), V_I32)

    return I32x16(types.int64), codegen


@intrinsic
def store_f32(typingctx: Any, at: Any, value: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        store(b, args[1], args[0])
        return context.get_dummy_value()

    return types.void(types.int64, F32x16), codegen


@intrinsic
def store_f16(typingctx: Any, at: Any, value: Any) -> Any:
    """Rounded to nearest even; the caller keeps values within +-65504 (`clamp`)."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        store(b, narrowed_half(b, args[1]), args[0])
        return context.get_dummy_value()

    return types.void(types.int64, F32x16), codegen


@intrinsic
def store_i8(typingctx: Any, at: Any, value: Any) -> Any:
    """The low byte of each lane."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        store(b, b.trunc(args[1], V_I8), args[0])
        return context.get_dummy_value()

    return types.void(types.int64, I32x16), codegen


@intrinsic
def splat_f32(typingctx: Any, x: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return splat(b, args[0], V_F32)

    return F32x16(types.float32), codegen


@intrinsic
def splat_i32(typingctx: Any, x: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return splat(b, args[0], V_I32)

    return I32x16(types.int32), codegen


@intrinsic
def lane_numbers(typingctx: Any) -> Any:
    """0, 1 ... 15."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(V_I32, list(range(LANES)))

    return I32x16(), codegen


def _binary(method: str, kind: VectorType) -> Any:
    def typed(typingctx: Any, a: Any, c: Any) -> Any:
        def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
            return getattr(b, method)(*args)

        return kind(kind, kind), codegen

    return intrinsic(typed)


add, sub, mul, div = (_binary(method, F32x16) for method in ("fadd", "fsub", "fmul", "fdiv"))
add_i32, sub_i32, mul_i32, shl_i32 = (_binary(method, I32x16) for method in ("add", "sub", "mul", "shl"))


@intrinsic
def fma(typingctx: Any, a: Any, c: Any, d: Any) -> Any:
    """a * c + d, rounded once."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return llvm_call(b, "llvm.fma.v16f32", V_F32, list(args))

    return F32x16(F32x16, F32x16, F32x16), codegen


def _chosen(b: ir.IRBuilder, order: str, a: ir.Value, c: ir.Value) -> ir.Value:
    """As maxps and minps do: the second operand where the comparison is false, NaN included."""
    return b.select(b.fcmp_ordered(order, a, c), a, c)


@intrinsic
def maximum(typingctx: Any, a: Any, c: Any) -> Any:
    """The larger of each lane; c where one is NaN."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return _chosen(b, ">", *args)

    return F32x16(F32x16, F32x16), codegen


@intrinsic
def minimum(typingctx: Any, a: Any, c: Any) -> Any:
    """The smaller of each lane; c where one is NaN."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return _chosen(b, "<", *args)

    return F32x16(F32x16, F32x16), codegen


def _magnitude(b: ir.IRBuilder, a: ir.Value) -> ir.Value:
    return b.and_(b.bitcast(a, V_I32), ir.Constant(V_I32, [0x7FFFFFFF] * LANES))


def _larger(b: ir.IRBuilder, a: ir.Value, c: ir.Value) -> ir.Value:
    return b.select(b.icmp_signed(">", a, c), a, c)


@intrinsic
def larger_magnitude(typingctx: Any, a: Any, c: Any) -> Any:
    """The larger absolute value of each lane; NaN where one is NaN, so that nothing broken goes unseen."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.bitcast(_larger(b, *(_magnitude(b, argument) for argument in args)), V_F32)

    return F32x16(F32x16, F32x16), codegen


@intrinsic
def absolute(typingctx: Any, a: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return llvm_call(b, "llvm.fabs.v16f32", V_F32, list(args))

    return F32x16(F32x16), codegen


@intrinsic
def rounded(typingctx: Any, a: Any) -> Any:
    """To the nearest whole number, ties to even, still float."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return llvm_call(b, "llvm.rint.v16f32", V_F32, list(args))

    return F32x16(F32x16), codegen


@intrinsic
def to_i32(typingctx: Any, a: Any) -> Any:
    """Whole floats within int32 to integers."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.fptosi(args[0], V_I32)

    return I32x16(F32x16), codegen


@intrinsic
def to_f32(typingctx: Any, a: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.sitofp(args[0], V_F32)

    return F32x16(I32x16), codegen


@intrinsic
def bits_as_f32(typingctx: Any, a: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.bitcast(args[0], V_F32)

    return F32x16(I32x16), codegen


@intrinsic
def where_less_i32(typingctx: Any, a: Any, c: Any, x: Any, y: Any) -> Any:
    """x where a < c, else y."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.select(b.icmp_signed("<", args[0], args[1]), args[2], args[3])

    return F32x16(I32x16, I32x16, F32x16, F32x16), codegen


@intrinsic
def first_lane(typingctx: Any, a: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.extract_element(args[0], ir.Constant(i32, 0))

    return types.float32(F32x16), codegen


def _tree(b: ir.IRBuilder, value: ir.Value, join: Any) -> ir.Value:
    """Lane i with lane i + 8, then + 4, + 2, + 1: the same order on every processor."""
    half = LANES // 2
    while half:
        mask = [(lane + half) % LANES for lane in range(LANES)]
        other = b.shuffle_vector(value, value, ir.Constant(ir.VectorType(i32, LANES), mask))
        value = join(value, other)
        half //= 2
    return b.extract_element(value, ir.Constant(i32, 0))


@intrinsic
def sum_lanes(typingctx: Any, a: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return _tree(b, args[0], b.fadd)

    return types.float32(F32x16), codegen


@intrinsic
def sum_lanes_i32(typingctx: Any, a: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return _tree(b, args[0], b.add)

    return types.int32(I32x16), codegen


@intrinsic
def max_lane(typingctx: Any, a: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return _tree(b, args[0], lambda x, y: _chosen(b, ">", x, y))

    return types.float32(F32x16), codegen


@intrinsic
def largest_magnitude(typingctx: Any, a: Any) -> Any:
    """Of all lanes, NaN if one is."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.bitcast(_tree(b, _magnitude(b, args[0]), lambda x, y: _larger(b, x, y)), f32)

    return types.float32(F32x16), codegen


@njit(nogil=True, error_model="numpy")
def clamp(value: Any, low: float, high: float) -> Any:
    return minimum(maximum(value, splat_f32(low)), splat_f32(high))


@njit(nogil=True, error_model="numpy")
def exp(x: Any) -> Any:
    """e to the x, within 2 units in the last place; as at -87.3 below and for NaN, as at 88 above: never 0 or inf."""
    x = minimum(maximum(x, splat_f32(-87.33654)), splat_f32(88.0))
    turns = rounded(mul(x, splat_f32(1.44269504)))
    rest = fma(turns, splat_f32(-0.693359375), x)
    rest = fma(turns, splat_f32(2.12194440e-4), rest)
    y = fma(splat_f32(1.9875691500e-4), rest, splat_f32(1.3981999507e-3))
    y = fma(y, rest, splat_f32(8.3334519073e-3))
    y = fma(y, rest, splat_f32(4.1665795894e-2))
    y = fma(y, rest, splat_f32(1.6666665459e-1))
    y = fma(y, rest, splat_f32(5.0000001201e-1))
    y = fma(y, mul(rest, rest), add(rest, splat_f32(1.0)))
    power = shl_i32(add_i32(to_i32(turns), splat_i32(127)), splat_i32(23))
    return mul(y, bits_as_f32(power))


@njit(nogil=True, error_model="numpy")
def silu(x: Any) -> Any:
    """x * sigmoid(x), within 3 units in the last place; a trifle instead of 0 below -87."""
    return div(x, add(splat_f32(1.0), exp(sub(splat_f32(0.0), x))))
