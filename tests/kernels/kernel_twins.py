"""What kernels compute, step by step in NumPy with the same roundings: the slow twins, equal to the last bit.

A fused multiply-add is one rounding: the product of two float32 is exact in float64, the sum is rounded to odd there
(Boldo and Melquiond, 2008), and rounding that to float32 is then the correctly rounded result.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepseek.kernels.linear import activation_group
from deepseek.packing import Floats
from kernel_plans import Matrix

F32 = np.float32
SMALLEST_STEP = F32(2.0**-126)


def fma(a: Any, b: Any, c: Any) -> Floats:
    """a * b + c, rounded once."""
    product = np.asarray(a, F32).astype(np.float64) * np.asarray(b, F32)
    addend = np.asarray(c, F32).astype(np.float64)
    total = np.asarray(product + addend)
    with np.errstate(invalid="ignore"):
        back = total - product
        error = (product - (total - back)) + (addend - back)
    is_even = (total.view(np.int64) & 1) == 0
    inexact = is_even & (error != 0) & np.isfinite(total)
    total = np.where(inexact, np.nextafter(total, np.where(error > 0, np.inf, -np.inf)), total)
    with np.errstate(over="ignore"):
        return total.astype(F32)


def exp(x: Any) -> Floats:
    x = np.asarray(x, F32)
    x = np.where(x > F32(-87.33654), x, F32(-87.33654))  # NaN too
    x = np.where(x < F32(88.0), x, F32(88.0))
    turns = np.rint(x * F32(1.44269504))
    rest = fma(turns, F32(2.12194440e-4), fma(turns, F32(-0.693359375), x))
    y: Any = F32(1.9875691500e-4)
    for factor in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        y = fma(y, rest, F32(factor))
    y = fma(y, rest * rest, rest + F32(1.0))
    return np.asarray(y * ((turns.astype(np.int32) + 127) << 23).view(F32))


def silu(x: Floats) -> Floats:
    return x / (F32(1.0) + exp(-x))


def quantise(x: Floats, group: int) -> tuple[NDArray[np.int32], Floats]:
    """(rows, inputs) to codes (rows, groups, group) and the step of each group."""
    values = x.reshape(len(x), -1, group)
    step = (np.abs(values).max(axis=2).astype(np.float64) / 127.0).astype(F32)
    return np.rint(values * _inverse(step)[:, :, None]).astype(np.int32), step


def _inverse(step: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.where(step >= SMALLEST_STEP, 1.0 / step.astype(np.float64), 0.0).astype(F32)


def rest_of(x: Floats, codes: NDArray[np.int32], step: Floats) -> Floats:
    """What the first codes leave over."""
    values = x.reshape(codes.shape)
    return np.where((step >= SMALLEST_STEP)[:, :, None], fma(-codes, step[:, :, None], values), values).reshape(x.shape)


def integer_product(x: Floats, matrix: Matrix, *, low: bool = False) -> Floats:
    """x (rows, inputs) through an integer matrix; low: with 16 bits of activations."""
    packing = matrix.packing
    group = activation_group(packing)
    whole = np.zeros((len(x), matrix.padded_inputs), F32)
    whole[:, : matrix.inputs] = x
    codes, step = quantise(whole, group)
    total = _of_codes(codes, step, matrix)
    if low:
        total = total + _of_codes(*quantise(rest_of(whole, codes, step), group), matrix)
    return total


def _of_codes(codes: NDArray[np.int32], step: Floats, matrix: Matrix) -> Floats:
    packing, (rows, groups, group) = matrix.packing, codes.shape
    assert matrix.codes is not None
    assert matrix.scales is not None
    weights = np.full((matrix.rows, matrix.padded_inputs), packing.zero_point, np.int32)
    weights[:, : matrix.inputs] = matrix.codes
    weights = (weights - packing.zero_point).reshape(matrix.rows, groups, group)
    share = packing.group // group
    total = np.zeros((rows, matrix.rows), F32)
    for number in range(groups):
        exact = codes[:, number] @ weights[:, number].T
        scale = matrix.scales[:, number // share].astype(F32)
        total = fma(exact.astype(F32), scale * step[:, number, None], total)
        if matrix.minimums is not None:
            start = (step[:, number].astype(np.float64) * codes[:, number].sum(axis=1)).astype(F32)
            total = fma(matrix.minimums[:, number // share].astype(F32), start[:, None], total)
    return total


def float_product(x: Floats, matrix: Matrix) -> Floats:
    """One fused multiply-add an input, in ascending order."""
    values = matrix.values
    total = np.zeros((len(x), matrix.rows), F32)
    for place in range(matrix.inputs):
        total = fma(values[:, place], x[:, place, None], total)
    return total


def product(x: Floats, matrix: Matrix, *, low: bool = False) -> Floats:
    return integer_product(x, matrix, low=low) if matrix.packing.is_integer else float_product(x, matrix)


def lane_tree(lanes: Floats, join: Any) -> Any:
    """Sixteen lanes (the last axis) to one: i with i + 8, then + 4, + 2, + 1."""
    half = 8
    while half:
        lanes = join(lanes[..., :half], lanes[..., half : 2 * half])
        half //= 2
    return lanes[..., 0]


def rms_norm(x: Floats, weight: Floats, epsilon: float) -> Floats:
    """One row, with four running sums of vectors and the tree over lanes."""
    inputs = x.size
    vectors = np.zeros((-(-inputs // 16), 16), F32)
    vectors.reshape(-1)[:inputs] = x
    sums = np.zeros((4, 16), F32)
    whole = len(vectors) // 4 * 4
    for place, vector in enumerate(vectors):
        which = place % 4 if place < whole else 0
        sums[which] = fma(vector, vector, sums[which])
    total = lane_tree((sums[0] + sums[1]) + (sums[2] + sums[3]), np.add)
    factor = F32(1.0 / (float(total) / inputs + float(F32(epsilon))) ** 0.5)
    return weight * (x * factor)
