"""Scalars at addresses, atomics and waiting: what a kernel needs besides vectors.

Kernels get addresses, not arrays: a plan's row holds them, and nothing is unpacked or counted on the way.
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from deepseek.kernels.halves import narrowed_half, widened_half
from deepseek.kernels.vectors import address, f16, f32, i8, i16, i32, i64, llvm_call, load, prefetch, store

SPINS_BEFORE_YIELD = 4_000
SPINS_BEFORE_SLEEP = 12_000
SLEEP_MICROSECONDS = 50


def _loader(llvm_type: ir.Type, numba_type: Any, widen: Any = None) -> Any:
    def typed(typingctx: Any, at: Any) -> Any:
        def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
            value = load(b, args[0], llvm_type)
            return widen(b, value) if widen else value

        return numba_type(types.int64), codegen

    return intrinsic(typed)


get_i64 = _loader(i64, types.int64)
get_i32 = _loader(i32, types.int64, lambda b, value: b.sext(value, i64))
get_u16 = _loader(i16, types.int64, lambda b, value: b.zext(value, i64))
get_u8 = _loader(i8, types.int64, lambda b, value: b.zext(value, i64))
get_f32 = _loader(f32, types.float32)
get_f64 = _loader(ir.DoubleType(), types.float64)
get_f16 = _loader(f16, types.float32, widened_half)


def _storer(numba_type: Any, narrow: Any = None) -> Any:
    def typed(typingctx: Any, at: Any, value: Any) -> Any:
        def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
            store(b, narrow(b, args[1]) if narrow else args[1], args[0])
            return context.get_dummy_value()

        return types.void(types.int64, numba_type), codegen

    return intrinsic(typed)


put_i64 = _storer(types.int64)
put_i32 = _storer(types.int64, lambda b, value: b.trunc(value, i32))
put_u8 = _storer(types.int64, lambda b, value: b.trunc(value, i8))
put_f32 = _storer(types.float32)
put_f16 = _storer(types.float32, narrowed_half)


@intrinsic
def as_f32(typingctx: Any, x: Any) -> Any:
    """A number rounded to float32: Numba's own arithmetic on scalars is in float64."""
    if isinstance(x, types.Integer):
        return types.float32(types.int64), lambda context, b, sig, args: b.sitofp(args[0], f32)
    if x == types.float32:
        return types.float32(types.float32), lambda context, b, sig, args: args[0]
    return types.float32(types.float64), lambda context, b, sig, args: b.fptrunc(args[0], f32)


@njit(nogil=True, error_model="numpy")
def field(op: int, index: int) -> int:
    """Column `index` of a plan's row."""
    return get_i64(op + 8 * index)


@intrinsic
def atomic_add(typingctx: Any, at: Any, value: Any) -> Any:
    """Adds and returns what was there before."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.atomic_rmw("add", address(b, args[0], i64), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def atomic_load(typingctx: Any, at: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.load_atomic(address(b, args[0], i64), "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def atomic_store(typingctx: Any, at: Any, value: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        b.store_atomic(args[1], address(b, args[0], i64), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def yield_cpu(typingctx: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return llvm_call(b, "sched_yield", i32, [])

    return types.int32(), codegen


@intrinsic
def sleep_microseconds(typingctx: Any, count: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return llvm_call(b, "usleep", i32, [b.trunc(args[0], i32)])

    return types.int32(types.int64), codegen


@intrinsic
def call_kernel(typingctx: Any, function: Any, op: Any, me: Any) -> Any:
    """Call the native function at that address: void(op, me)."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [i64, i64])
        b.call(b.inttoptr(args[0], kind.as_pointer()), [args[1], args[2]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def prefetch_line(typingctx: Any, at: Any) -> Any:
    """Into the second-level cache. An address that is not mapped does no harm."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        prefetch(b, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@njit(nogil=True, error_model="numpy")
def fetch(at: int, count: int) -> None:
    """Have `count` bytes brought into the cache while the caller goes on."""
    for place in range(0, count, 64):
        prefetch_line(at + place)


@intrinsic
def copy_bytes(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """memcpy; the two do not overlap."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        llvm_call(b, "memcpy", i8.as_pointer(), [*(address(b, at, i8) for at in args[:2]), args[2]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def fill_zero(typingctx: Any, target: Any, count: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        llvm_call(b, "memset", i8.as_pointer(), [address(b, args[0], i8), ir.Constant(i32, 0), args[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@njit(nogil=True, error_model="numpy")
def wait_until(at: int, target: int, longest_sleep: int) -> None:
    """Until the counter reaches `target`: spin shortly, then yield, then sleep, up to `longest_sleep` microseconds."""
    spins = 0
    sleep = SLEEP_MICROSECONDS
    while atomic_load(at) < target:
        spins += 1
        if spins > SPINS_BEFORE_SLEEP:
            sleep_microseconds(sleep)
            if sleep < longest_sleep and spins % 64 == 0:
                sleep *= 2
        elif spins > SPINS_BEFORE_YIELD:
            yield_cpu()


@njit(nogil=True, error_model="numpy")
def meet(at: int, team: int) -> None:
    """A barrier: returns when all `team` threads have called it. The counter at `at` only grows."""
    mine = atomic_add(at, 1)
    wait_until(at, (mine // team + 1) * team, SLEEP_MICROSECONDS)
