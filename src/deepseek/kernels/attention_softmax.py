"""Softmax of attention: products of codes become weights of 16 bits, which multiply the values' codes exactly.

The weights of one query over one part of the keys share a factor that is as small as int16 for each and int32 for all
allow, so that what is lost is far below what the cache loses.
"""

from typing import Any

from numba import njit

from deepseek.kernels.attention_tiles import exp2, load_i32, round_scaled, store_i16
from deepseek.kernels.memory import as_f32, copy_bytes, get_f32, put_f32
from deepseek.kernels.vectors import (
    add,
    add_i32,
    first_lane,
    fma,
    lane_numbers,
    load_f32,
    maximum,
    mul,
    splat_f32,
    splat_i32,
    store_f32,
    sub,
    sum_lanes_i32,
    to_f32,
    where_less_i32,
)

LARGEST_WEIGHT = 32_767.0
# Most that the weights of a part may sum up to: times the largest code of a value it is, rounding included, below
# 2**31. Codes of a byte are small enough for any weights.
MOST_WEIGHTS, MOST_WEIGHTS_OF_BYTES = 261_000.0, 1e9
SMALLEST = 1e-30  # whatever is below is taken for nothing, so that no reciprocal overflows
_INLINE = {"nogil": True, "error_model": "numpy"}


@njit(**_INLINE)
def _only(x: Any, place: int, begin: int, end: int, otherwise: float) -> Any:
    """x of the keys begin <= key < end, 16 of them from `place` on."""
    keys, other = add_i32(lane_numbers(), splat_i32(place)), splat_f32(as_f32(otherwise))
    return where_less_i32(keys, splat_i32(end), where_less_i32(keys, splat_i32(begin), other, x), other)


@njit(**_INLINE)
def scale_scores(scores: int, key_factors: int, begin: int, end: int, top: int) -> None:
    """int32 products of codes times their keys' factors, in place, of the keys from `begin` to before `end`.

    Those between them and whole vectors become -inf. top: address of 16 floats, the largest of each lane.
    """
    highest = splat_f32(as_f32(-float("inf")))
    for place in range(begin // 16 * 16, end, 16):
        x = mul(to_f32(load_i32(scores + 4 * place)), load_f32(key_factors + 4 * place))
        if place < begin or place + 16 > end:
            x = _only(x, place, begin, end, -float("inf"))
        store_f32(scores + 4 * place, x)
        highest = maximum(x, highest)
    store_f32(top, highest)


@njit(**_INLINE)
def weigh_scores(
    scores: int, value_factors: int, begin: int, end: int, factor: float, highest: float, sums: int
) -> None:
    """Scores to 2**((score - highest) * factor) times their values' factors, 0 outside of begin <= key < end.

    sums: address of 3 x 16 floats: of each lane the sum of the powers, the sum and the largest of the weights.
    """
    factors, tallest, zero = splat_f32(factor), splat_f32(highest), splat_f32(as_f32(0.0))
    power_sums, weight_sums, tops = zero, zero, zero
    for place in range(begin // 16 * 16, end, 16):
        power = exp2(mul(sub(load_f32(scores + 4 * place), tallest), factors))
        weight = mul(power, load_f32(value_factors + 4 * place))
        if place < begin or place + 16 > end:
            power, weight = _only(power, place, begin, end, 0.0), _only(weight, place, begin, end, 0.0)
        store_f32(scores + 4 * place, weight)
        power_sums, weight_sums, tops = add(power_sums, power), add(weight_sums, weight), maximum(weight, tops)
    store_f32(sums, power_sums)
    store_f32(sums + 64, weight_sums)
    store_f32(sums + 128, tops)


@njit(**_INLINE)
def unit_of_weights(total: float, largest: float, most: float) -> float:
    """What weights of that sum and largest are to be multiples of; most: of units in the sum."""
    unit, least = as_f32(total * as_f32(1.0 / most)), as_f32(largest * as_f32(1.0 / LARGEST_WEIGHT))
    return least if least > unit else unit


@njit(**_INLINE)
def round_weights(weights: int, target: int, begin: int, end: int, keys: int, unit: float, total: float) -> float:
    """Weights as multiples (int16) of `unit`, and 0 for the other ones of `keys` keys.

    Returns what the multiples are to be multiplied by so that they sum up to `total`, as the weights do: many that are
    alike would otherwise all be rounded the same way.
    """
    scale = splat_f32(as_f32(1.0 / float(unit)) if unit > SMALLEST else as_f32(0.0))
    first, behind = begin // 16 * 16, (end + 15) // 16 * 16
    nothing = splat_i32(0)
    sums = nothing
    for place in range(first, behind, 16):
        codes = round_scaled(load_f32(weights + 4 * place), scale)
        store_i16(target + 2 * place, codes)
        sums = add_i32(sums, codes)
    for place in range(0, first, 16):
        store_i16(target + 2 * place, nothing)
    for place in range(behind, keys, 16):
        store_i16(target + 2 * place, nothing)
    units = sum_lanes_i32(sums)
    return as_f32(total / as_f32(units)) if units > 0 else unit


@njit(**_INLINE)
def join_row(
    mixed: int, highest: int, total: int, to_mixed: int, to_highest: int, to_total: int, width: int, is_first: int
) -> None:
    """Add one part of a row to those before it: both are brought to the larger of their maxima."""
    if is_first != 0:
        copy_bytes(to_mixed, mixed, 4 * width)
        put_f32(to_highest, get_f32(highest))
        put_f32(to_total, get_f32(total))
        return
    before, here = get_f32(to_highest), get_f32(highest)
    if here == -float("inf"):  # a window hides all of this part
        return
    top = max(before, here)
    old, new = as_f32(0.0), first_lane(exp2(splat_f32(as_f32(here - top))))
    if before > -float("inf"):
        old = first_lane(exp2(splat_f32(as_f32(before - top))))
    old_lanes, new_lanes = splat_f32(old), splat_f32(new)
    for place in range(0, 4 * width, 64):
        kept = mul(load_f32(to_mixed + place), old_lanes)
        store_f32(to_mixed + place, fma(load_f32(mixed + place), new_lanes, kept))
    put_f32(to_highest, as_f32(top))
    put_f32(to_total, as_f32(as_f32(get_f32(to_total) * old) + as_f32(get_f32(total) * new)))
