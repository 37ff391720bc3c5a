"""exp and silu over their whole range, and the few operations whose edges others rely on."""

from typing import Any

import numpy as np
import pytest
from numba.extending import intrinsic
from numpy.typing import NDArray

from deepseek.kernels.halves import narrowed_in_integers, widened_in_integers
from deepseek.kernels.memory import field, put_f32, put_i32
from deepseek.kernels.plan import Kernel, kernel
from deepseek.kernels.vectors import (
    F32x16,
    exp,
    load_bf16,
    load_f16,
    load_f32,
    load_i8,
    load_u8,
    max_lane,
    maximum,
    minimum,
    silu,
    store_f16,
    store_f32,
    sum_lanes,
    sum_lanes_i32,
    to_f32,
)
from deepseek.packing import Floats
from kernel_plans import Plan, room
from kernel_twins import exp as exp_twin
from kernel_twins import silu as silu_twin

SOURCE, TARGET, COUNT = 4, 5, 6


@kernel
def exp_of(op: int, me: int) -> None:
    for place in range(0, 4 * field(op, COUNT), 64):
        store_f32(field(op, TARGET) + place, exp(load_f32(field(op, SOURCE) + place)))


@kernel
def silu_of(op: int, me: int) -> None:
    for place in range(0, 4 * field(op, COUNT), 64):
        store_f32(field(op, TARGET) + place, silu(load_f32(field(op, SOURCE) + place)))


@kernel
def through_half(op: int, me: int) -> None:
    for place in range(0, field(op, COUNT), 16):
        store_f16(field(op, TARGET) + 4 * place, load_f32(field(op, SOURCE) + 4 * place))
        store_f32(field(op, TARGET) + 4 * place, load_f16(field(op, TARGET) + 4 * place))


@kernel
def of_two(op: int, me: int) -> None:
    """maximum and minimum of the source's two vectors, then sum and max over lanes of the first."""
    a, b = load_f32(field(op, SOURCE)), load_f32(field(op, SOURCE) + 64)
    store_f32(field(op, TARGET), maximum(a, b))
    store_f32(field(op, TARGET) + 64, minimum(a, b))
    put_f32(field(op, TARGET) + 128, sum_lanes(a))
    put_f32(field(op, TARGET) + 132, max_lane(a))


@kernel
def of_bytes(op: int, me: int) -> None:
    signed, unsigned = load_i8(field(op, SOURCE)), load_u8(field(op, SOURCE))
    store_f32(field(op, TARGET), to_f32(signed))
    store_f32(field(op, TARGET) + 64, to_f32(unsigned))
    put_i32(field(op, TARGET) + 128, sum_lanes_i32(signed))
    store_f32(field(op, TARGET) + 192, load_bf16(field(op, SOURCE)))


def applied(function: Kernel, values: NDArray) -> Floats:
    source = room((-(-values.size // 16) * 16,), values.dtype)
    source[: values.size] = values
    target = room((max(source.size, 64),))
    plan = Plan(1)
    plan.add(function, {SOURCE: source, TARGET: target, COUNT: source.size})
    plan.run()
    return target[: values.size]


def units_in_the_last_place(got: Floats, exact: NDArray[np.float64]) -> float:
    spacing = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    return float((np.abs(got.astype(np.float64) - exact) / spacing).max())


def every_float(low: float, high: float, count: int = 300_000) -> Floats:
    """Floats from low to high, both of one sign, evenly over their bit patterns."""
    first, last = (int(np.float32(end).view(np.uint32)) for end in sorted((low, high), key=abs))
    return np.linspace(first, last, count).astype(np.uint32).view(np.float32)


SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, 88.0, 88.1, -87.4], np.float32)


def test_exp_is_within_two_units_in_the_last_place() -> None:
    x = np.concatenate([every_float(1e-44, 88.0), every_float(-1e-44, -87.33654)])
    got = applied(exp_of, x)
    assert units_in_the_last_place(got, np.exp(x.astype(np.float64))) < 1.5
    np.testing.assert_array_equal(got, exp_twin(x))


def test_exp_outside_its_range_stays_at_its_ends() -> None:
    """Never 0, infinity or NaN: who wants 0 for what is masked puts it there."""
    least, most = np.exp(np.float64(np.float32(-87.33654))), np.exp(88.0)
    got = applied(exp_of, SPECIAL)
    np.testing.assert_allclose(got, [least, most, least, 1, 1, 1, 1, most, least, most, most, least], rtol=2e-7)
    np.testing.assert_array_equal(got, exp_twin(SPECIAL))


def test_silu_is_within_three_units_in_the_last_place() -> None:
    x = np.concatenate([every_float(1e-38, 3e38), every_float(-1e-38, -80.0)])
    got = applied(silu_of, x)
    with np.errstate(over="ignore"):
        exact = x / (1 + np.exp(-x.astype(np.float64)))
    assert units_in_the_last_place(got, exact) < 3.5
    np.testing.assert_array_equal(got, silu_twin(x))


def test_silu_far_out() -> None:
    """Towards minus infinity a trifle instead of 0; NaN stays NaN, so a broken activation is seen."""
    got = applied(silu_of, np.array([-88.0, -1e4, -1e30, np.nan, np.inf], np.float32))
    assert np.abs(got[:3]).max() < 1e-8
    assert np.isnan(got[3])
    assert got[4] == np.inf


@intrinsic
def narrowed_and_widened(typingctx: Any, a: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return widened_in_integers(b, narrowed_in_integers(b, args[0]))

    return F32x16(F32x16), codegen


@kernel
def through_half_in_integers(op: int, me: int) -> None:
    for place in range(0, field(op, COUNT), 16):
        store_f32(field(op, TARGET) + 4 * place, narrowed_and_widened(load_f32(field(op, SOURCE) + 4 * place)))


def test_halves_in_integers_are_those_of_the_processor() -> None:
    """For processors without an instruction. Every half, and floats between and beside them."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = np.concatenate([every_float(1e-9, 1e5, 200_000), -every_float(1e-9, 1e5, 200_000)])
    ties = (np.arange(1 << 15, dtype=np.uint32) << 13 | 0x3800_1000).view(np.float32)[:0x4000]
    special = np.array([np.inf, -np.inf, np.nan, 65519.996, 65520.0, -65520.0, 3e38, 2.0**-25], np.float32)
    x = np.concatenate([halves, between, ties, special])
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(applied(through_half_in_integers, x), expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_halves_round_to_nearest_even_as_numpy_does(sign: int) -> None:
    x = sign * np.concatenate([every_float(1e-9, 65504.0, 100_000), np.arange(2048, 4096, dtype=np.float32)])
    np.testing.assert_array_equal(applied(through_half, x), x.astype(np.float16).astype(np.float32))


def test_maximum_and_minimum_take_the_second_where_one_is_not_a_number() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 16)).astype(np.float32)
    a[3], b[5] = np.nan, np.nan
    got = applied(of_two, np.concatenate([a, b, np.zeros(32, np.float32)])).view(np.float32)
    np.testing.assert_array_equal(got[:16], np.where(a > b, a, b))
    np.testing.assert_array_equal(got[16:32], np.where(a < b, a, b))


def test_sums_over_lanes_have_one_order() -> None:
    a = (np.random.default_rng(1).standard_normal(16) * 10.0 ** np.arange(16)).astype(np.float32)
    got = applied(of_two, np.concatenate([a, np.zeros(48, np.float32)]))
    tree = a
    while tree.size > 1:
        tree = tree[: tree.size // 2] + tree[tree.size // 2 :]
    assert got[32] == tree[0]
    assert got[33] == a.max()


def test_bytes_and_brain_floats_are_widened() -> None:
    raw = np.random.default_rng(2).integers(0, 256, 64, dtype=np.uint8)
    got = applied(of_bytes, raw)
    np.testing.assert_array_equal(got[:16], raw[:16].view(np.int8))
    np.testing.assert_array_equal(got[16:32], raw[:16])
    assert got.view(np.int32)[32] == raw[:16].view(np.int8).sum()
    wide = (raw[:32].view("<u2").astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(got[48:64].view(np.uint32), wide.view(np.uint32))
