"""Which experts a token goes to, and with which weights (DeepSeekMoE; V2 section 2.1.2; V3 equations 12 to 16).

The slow twin is `models.moe.Router`. All in float32: scores of every expert, choice of groups, choice of experts, best
first; of equal ones the lower number wins. A correction bias takes part in the choice, never in the weight. Whatever
the logits hold, NaN included, the chosen experts are different ones that exist: they become addresses.
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, register_jitable

from deepseek.kernels.memory import as_f32, copy_bytes, field, get_f32, get_i64, put_f32, put_i32
from deepseek.kernels.plan import STATE, kernel, take
from deepseek.kernels.vectors import (
    LANES,
    V_F32,
    F32x16,
    absolute,
    add,
    add_i32,
    div,
    exp,
    fma,
    i16,
    i64,
    lane_numbers,
    llvm_call,
    load_f32,
    max_lane,
    maximum,
    minimum,
    mul,
    splat,
    splat_f32,
    splat_i32,
    store_f32,
    sub,
    sum_lanes,
    where_less_i32,
)

(LOGITS, LOGITS_STRIDE, EXPERTS, TOP_K, SCORING, BIAS, GROUPS, TOP_GROUPS, BEST_OF_GROUP, NORMED, SCALE, IDS, WEIGHTS,
 SCRATCH, RECORD_IDS, RECORD_WEIGHTS, RECORD_AT, RECORD_ROWS) = range(4, 22)  # fmt: skip
"""LOGITS: rows of float32, LOGITS_STRIDE bytes apart. SCORING: see SCORINGS. BIAS: float32 of each expert, or 0.
GROUPS, TOP_GROUPS: how many there are and remain; a group is as good as the sum of its BEST_OF_GROUP (1 or 2) best.
NORMED: 1 if weights are divided by their sum. SCALE: address of a float32 that multiplies them. IDS (int32), WEIGHTS
(float32): rows of TOP_K, the result. SCRATCH: `route_scratch` bytes a thread. RECORD_IDS, RECORD_WEIGHTS: the same rows
once more for who watches, RECORD_ROWS of them, or 0; RECORD_AT: address of the int64 number of this step's first
record row, negative while nobody watches."""

SCORINGS = {"softmax": 0, "sigmoid": 1, "sqrtsoftplus": 2}
LOWEST = -3.4028235e38  # the lowest finite float32: stands for NaN, above all that may not be chosen
_NEVER = -float("inf")
_INLINE = {"nogil": True, "error_model": "numpy"}


@register_jitable
def route_scratch(experts: int) -> int:
    """Bytes of a thread's scratch: scores, what is chosen by, and scores of groups."""
    return 3 * 64 * ((experts + 15) // 16)


@intrinsic
def _root(typingctx: Any, a: Any) -> Any:
    """The square root of each lane."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return llvm_call(b, "llvm.sqrt.v16f32", V_F32, list(args))

    return F32x16(F32x16), codegen


@intrinsic
def _lane_of(typingctx: Any, a: Any, value: Any) -> Any:
    """The first lane that equals value; 16 if none does."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        equal = b.bitcast(b.fcmp_ordered("==", args[0], splat(b, args[1], V_F32)), i16)
        return b.zext(b.cttz(equal, ir.Constant(ir.IntType(1), 0)), i64)

    return types.int64(F32x16, types.float32), codegen


@kernel
def route(op: int, me: int) -> None:
    """Experts and weights of each row."""
    rows = get_i64(field(op, STATE))
    scores = field(op, SCRATCH) + me * route_scratch(field(op, EXPERTS))
    chunk = 1 + rows // 64
    begin = take(op, chunk)
    while begin < rows:
        for row in range(begin, min(begin + chunk, rows)):
            _route_row(op, row, scores)
        begin = take(op, chunk)


@njit(**_INLINE)
def _route_row(op: int, row: int, scores: int) -> None:
    experts, top_k = field(op, EXPERTS), field(op, TOP_K)
    vectors = (experts + LANES - 1) // LANES
    choice = scores + 64 * vectors
    _score(field(op, LOGITS) + row * field(op, LOGITS_STRIDE), experts, field(op, SCORING), scores)
    for number in range(vectors):
        value = load_f32(scores + 64 * number)
        if field(op, BIAS) != 0:
            value = add(value, load_f32(field(op, BIAS) + 64 * number))
        value = maximum(value, splat_f32(as_f32(LOWEST)))
        store_f32(choice + 64 * number, _within(value, number, 0, experts))
    if field(op, TOP_GROUPS) < field(op, GROUPS):
        _drop_groups(op, choice, choice + 64 * vectors)
    ids, weights = field(op, IDS) + 4 * row * top_k, field(op, WEIGHTS) + 4 * row * top_k
    for place in range(top_k):
        expert = _take_best(choice, vectors)
        put_i32(ids + 4 * place, expert)
        put_f32(weights + 4 * place, get_f32(scores + 4 * expert))
    _finish_weights(op, weights, top_k)
    if field(op, RECORD_IDS) != 0:
        _record_row(op, row, ids, weights)


@njit(**_INLINE)
def _record_row(op: int, row: int, ids: int, weights: int) -> None:
    first, row_bytes = get_i64(field(op, RECORD_AT)), 4 * field(op, TOP_K)
    if first >= 0 and first + row < field(op, RECORD_ROWS):
        copy_bytes(field(op, RECORD_IDS) + (first + row) * row_bytes, ids, row_bytes)
        copy_bytes(field(op, RECORD_WEIGHTS) + (first + row) * row_bytes, weights, row_bytes)


@njit(**_INLINE)
def _within(value: Any, number: int, begin: int, end: int) -> Any:
    """Vector `number` of a row, -inf in lanes outside of begin <= expert < end."""
    lanes = add_i32(lane_numbers(), splat_i32(LANES * number))
    never = splat_f32(as_f32(_NEVER))
    return where_less_i32(lanes, splat_i32(begin), never, where_less_i32(lanes, splat_i32(end), value, never))


@njit(**_INLINE)
def _score(logits: int, experts: int, scoring: int, scores: int) -> None:
    """Scores of a row; anything in the lanes beyond the last expert."""
    vectors = (experts + LANES - 1) // LANES
    if scoring == 0:
        _softmax(logits, experts, scores)
    elif scoring == 1:
        one = splat_f32(as_f32(1.0))
        for number in range(vectors):
            opposite = sub(splat_f32(as_f32(0.0)), load_f32(logits + 64 * number))
            store_f32(scores + 64 * number, div(one, add(one, exp(opposite))))
    else:
        for number in range(vectors):
            store_f32(scores + 64 * number, _root(_softplus(load_f32(logits + 64 * number))))


@njit(**_INLINE)
def _softmax(logits: int, experts: int, scores: int) -> None:
    vectors = (experts + LANES - 1) // LANES
    highest = splat_f32(as_f32(_NEVER))
    for number in range(vectors):
        highest = maximum(_within(load_f32(logits + 64 * number), number, 0, experts), highest)
    top = splat_f32(max_lane(highest))
    end, zero = splat_i32(experts), splat_f32(as_f32(0.0))
    total = zero
    for number in range(vectors):
        value = exp(sub(load_f32(logits + 64 * number), top))
        value = where_less_i32(add_i32(lane_numbers(), splat_i32(LANES * number)), end, value, zero)
        store_f32(scores + 64 * number, value)
        total = add(total, value)
    whole = splat_f32(sum_lanes(total))
    for number in range(vectors):
        store_f32(scores + 64 * number, div(load_f32(scores + 64 * number), whole))


@njit(**_INLINE)
def _softplus(x: Any) -> Any:
    """log(1 + e^x) = max(x, 0) + log1p(t) with t = e^-|x|; log1p(t) = 2 artanh(s) with s = t / (2 + t) <= 1/3."""
    t = exp(sub(splat_f32(as_f32(0.0)), absolute(x)))
    s = div(t, add(t, splat_f32(as_f32(2.0))))
    square = mul(s, s)
    y = splat_f32(as_f32(1.0 / 15.0))
    y = fma(y, square, splat_f32(as_f32(1.0 / 13.0)))
    y = fma(y, square, splat_f32(as_f32(1.0 / 11.0)))
    y = fma(y, square, splat_f32(as_f32(1.0 / 9.0)))
    y = fma(y, square, splat_f32(as_f32(1.0 / 7.0)))
    y = fma(y, square, splat_f32(as_f32(1.0 / 5.0)))
    y = fma(y, square, splat_f32(as_f32(1.0 / 3.0)))
    y = fma(y, square, splat_f32(as_f32(1.0)))
    return fma(add(s, s), y, maximum(x, splat_f32(as_f32(0.0))))


@njit(**_INLINE)
def _take_best(choice: int, vectors: int) -> int:
    """The number of the largest value, the first of equal ones; it becomes -inf, so it is not taken again."""
    best = splat_f32(as_f32(_NEVER))
    for number in range(vectors):
        best = maximum(load_f32(choice + 64 * number), best)
    high = max_lane(best)
    number, lane = 0, _lane_of(load_f32(choice), high)
    while lane == LANES:
        number += 1
        lane = _lane_of(load_f32(choice + 64 * number), high)
    put_f32(choice + 64 * number + 4 * lane, as_f32(_NEVER))
    return LANES * number + lane


@njit(**_INLINE)
def _drop_groups(op: int, choice: int, groups: int) -> None:
    """-inf for every expert outside of the best groups."""
    count, size = field(op, GROUPS), field(op, EXPERTS) // field(op, GROUPS)
    for group in range(count):
        put_f32(groups + 4 * group, _score_group(choice, group * size, group * size + size, field(op, BEST_OF_GROUP)))
    vectors = (count + LANES - 1) // LANES
    for number in range(vectors):
        value = maximum(load_f32(groups + 64 * number), splat_f32(as_f32(LOWEST)))
        store_f32(groups + 64 * number, _within(value, number, 0, count))
    for _ in range(field(op, TOP_GROUPS)):
        _take_best(groups, vectors)
    for group in range(count):
        if get_f32(groups + 4 * group) != _NEVER:
            for expert in range(group * size, group * size + size):
                put_f32(choice + 4 * expert, as_f32(_NEVER))


@njit(**_INLINE)
def _score_group(choice: int, begin: int, end: int, best_of: int) -> float:
    """The largest value of begin <= expert < end, or the sum of the two largest."""
    first = splat_f32(as_f32(_NEVER))
    second = first
    for number in range(begin // LANES, (end + LANES - 1) // LANES):
        value = _within(load_f32(choice + 64 * number), number, begin, end)
        second = maximum(second, minimum(first, value))
        first = maximum(first, value)
    high = max_lane(first)
    if best_of < 2:
        return high
    # The lane that holds the largest has its own runner-up; any other lane's first may be it as well.
    lane = _lane_of(first, high)
    lanes = lane_numbers()
    others = where_less_i32(lanes, splat_i32(lane), first, where_less_i32(lanes, splat_i32(lane + 1), second, first))
    return as_f32(high + max_lane(others))


@njit(**_INLINE)
def _finish_weights(op: int, weights: int, top_k: int) -> None:
    """Divide by their sum, if so configured, and scale."""
    total = as_f32(0.0)
    for place in range(top_k):
        total = as_f32(total + get_f32(weights + 4 * place))
    total = as_f32(total + as_f32(1e-20))
    scale = get_f32(field(op, SCALE))
    for place in range(top_k):
        value = get_f32(weights + 4 * place)
        if field(op, NORMED) != 0:
            value = as_f32(value / total)
        put_f32(weights + 4 * place, as_f32(value * scale))
