"""From a routing to each expert's rows and back: `group` sorts, `gather` copies rows, `combine` adds the outputs up.

Experts are reached through a table alone, EXPERT_FIELDS int64 for each: so one can be swapped, streamed, or kept in a
packing of its own. Experts of the same packings form a class, and each class has its operations between `gather` and
`combine`; they run over its active experts by the segments (see `linear`) that `group` writes in each step.

A row of a class is a token in one of its experts: experts ascending, tokens ascending within one. A place is the same
over all classes: where the expert's output goes.
"""

from numba import njit
from numba.extending import register_jitable

from deepseek.kernels.linear import SEGMENT_FIELDS
from deepseek.kernels.memory import (
    as_f32,
    copy_bytes,
    field,
    fill_zero,
    get_f32,
    get_i32,
    get_i64,
    put_i32,
    put_i64,
)
from deepseek.kernels.plan import PRIVATE_ROWS, STATE, kernel, take
from deepseek.kernels.vectors import add, fma, load_f32, splat_f32, store_f32

EXPERT_FIELDS = 4  # int64 of an expert: addresses of gate, up and down, number of its class

# A class, int64 each. ROWS is the first, so that a class is the state of operations that run over its rows.
(ROWS, ACTIVE, GATE_UP, DOWN, ORIGINS, SOURCE, SOURCE_STRIDE, SOURCE_PRIVATE, FACTORS, STARTS, GROUP_STRIDE,
 PRIVATE_GROUPS, GATHERED, GATHERED_FACTORS, GATHERED_STARTS, H_STRIDE, H_CODES_STRIDE, H_GROUP_STRIDE,
 Y_STRIDE) = range(19)  # fmt: skip
CLASS_FIELDS = 24
"""ROWS, ACTIVE: rows and active experts of this step, written by `group`. GATE_UP, DOWN: their segments, room for all
experts. ORIGINS: int32, the token of each row. SOURCE ...: the tokens as `prepare` leaves them, codes or floats,
SOURCE_STRIDE bytes a row; FACTORS, STARTS: of codes, GROUP_STRIDE bytes a row (0: floats have none); each thread's own
copy begins SOURCE_PRIVATE and PRIVATE_GROUPS bytes after the last. GATHERED ...: the same in the order of rows.
H_STRIDE: of an expert's inner values; H_CODES_STRIDE, H_GROUP_STRIDE: of what the down matrices read; Y_STRIDE: of the
outputs, by place."""

# Columns of `group`.
(IDS, TOP_K, EXPERTS, TABLE, CLASSES, CLASS_COUNT, PLACES, SCRATCH, TOTALS, RECORD_AT, RECORD_ENDS) = range(4, 15)
"""IDS: int32, rows of TOP_K. TABLE: see EXPERT_FIELDS. CLASSES: see CLASS_FIELDS. PLACES: int32, of each assignment, a
result. SCRATCH: `group_scratch` bytes. TOTALS: int64 of each expert to which its rows are added, or 0; RECORD_AT: as
`routing` has it, nothing is added while that is negative. RECORD_ENDS: 1 if no later layer records: RECORD_AT goes on
to the rows of the next round."""

GATHER_CLASS = 4  # Column of `gather`: address of its class.

# Columns of `combine`: what is added to, weights and places of the choice, outputs by place.
(COMBINE_X, COMBINE_X_STRIDE, COMBINE_COLUMNS, COMBINE_TOP_K, COMBINE_WEIGHTS, COMBINE_PLACES, COMBINE_Y,
 COMBINE_Y_STRIDE) = range(4, 12)  # fmt: skip

_COLUMNS_A_PART = 512
_ROWS_A_CHUNK = 8
_INLINE = {"nogil": True, "error_model": "numpy"}


@register_jitable
def group_scratch(experts: int) -> int:
    """Bytes: of each expert its rows, its next place, and what leads from a place to a row."""
    return 3 * 8 * experts


@kernel
def group(op: int, me: int) -> None:
    """Sort assignments by expert and write the segments of every class. One thread: it takes microseconds."""
    if take(op, 1) != 0:
        return
    tokens = get_i64(field(op, STATE))
    for number in range(field(op, CLASS_COUNT)):
        of_class = field(op, CLASSES) + 8 * CLASS_FIELDS * number
        put_i64(of_class + 8 * ROWS, 0)
        put_i64(of_class + 8 * ACTIVE, 0)
    most = _lay_out(op, tokens)
    _place(op, tokens)
    _write_segments(op, tokens, most)
    _record(op, tokens)
    if tokens <= PRIVATE_ROWS:
        for number in range(field(op, CLASS_COUNT)):
            for token in range(tokens):
                _copy_row(field(op, CLASSES) + 8 * CLASS_FIELDS * number, me, token, token)


@njit(**_INLINE)
def _lay_out(op: int, tokens: int) -> int:
    """Count the rows of each expert and give it its first place; the largest count."""
    experts, ids = field(op, EXPERTS), field(op, IDS)
    counts = field(op, SCRATCH)
    next_place, to_row = counts + 8 * experts, counts + 16 * experts
    fill_zero(counts, 8 * experts)
    for assignment in range(tokens * field(op, TOP_K)):
        at = counts + 8 * get_i32(ids + 4 * assignment)
        put_i64(at, get_i64(at) + 1)
    place = most = 0
    for expert in range(experts):
        count = get_i64(counts + 8 * expert)
        if count != 0:
            rows = _class_of(op, expert) + 8 * ROWS
            put_i64(next_place + 8 * expert, place)
            put_i64(to_row + 8 * expert, get_i64(rows) - place)
            put_i64(rows, get_i64(rows) + count)
            place += count
            most = max(most, count)
    return most


@njit(**_INLINE)
def _record(op: int, tokens: int) -> None:
    """Add this step's rows to the running totals. Needs no atomics: one thread does it."""
    totals, at = field(op, TOTALS), field(op, RECORD_AT)
    if totals == 0 or get_i64(at) < 0:
        return
    for assignment in range(tokens * field(op, TOP_K)):
        total = totals + 8 * get_i32(field(op, IDS) + 4 * assignment)
        put_i64(total, get_i64(total) + 1)
    if field(op, RECORD_ENDS) != 0:
        put_i64(at, get_i64(at) + tokens)


@njit(**_INLINE)
def _class_of(op: int, expert: int) -> int:
    return field(op, CLASSES) + 8 * CLASS_FIELDS * get_i64(field(op, TABLE) + 8 * (EXPERT_FIELDS * expert + 3))


@njit(**_INLINE)
def _place(op: int, tokens: int) -> None:
    """The place of each assignment, and the token of each row."""
    top_k, ids, places = field(op, TOP_K), field(op, IDS), field(op, PLACES)
    next_place = field(op, SCRATCH) + 8 * field(op, EXPERTS)
    to_row = next_place + 8 * field(op, EXPERTS)
    for token in range(tokens):
        for assignment in range(token * top_k, token * top_k + top_k):
            expert = get_i32(ids + 4 * assignment)
            place = get_i64(next_place + 8 * expert)
            put_i64(next_place + 8 * expert, place + 1)
            put_i32(places + 4 * assignment, place)
            row = place + get_i64(to_row + 8 * expert)
            put_i32(get_i64(_class_of(op, expert) + 8 * ORIGINS) + 4 * row, token)


@njit(**_INLINE)
def _write_segments(op: int, tokens: int, most: int) -> None:
    """Experts with many rows first, by powers of two: what is left to wait for at the end is small."""
    experts, counts = field(op, EXPERTS), field(op, SCRATCH)
    level = 0
    while most >> level > 1:
        level += 1
    while level >= 0:
        for expert in range(experts):
            if get_i64(counts + 8 * expert) >> level == 1:
                _write_segment(op, expert, tokens)
        level -= 1


@njit(**_INLINE)
def _write_segment(op: int, expert: int, tokens: int) -> None:
    of_class, weights = _class_of(op, expert), field(op, TABLE) + 8 * EXPERT_FIELDS * expert
    scratch = field(op, SCRATCH) + 8 * expert
    count = get_i64(scratch)
    place = get_i64(scratch + 8 * field(op, EXPERTS)) - count
    row = place + get_i64(scratch + 16 * field(op, EXPERTS))
    # Few tokens are not gathered: an expert's are neighbours anyway, it has one of them or all.
    source = row if tokens > PRIVATE_ROWS else get_i32(get_i64(of_class + 8 * ORIGINS) + 4 * row)
    number = get_i64(of_class + 8 * ACTIVE)
    put_i64(of_class + 8 * ACTIVE, number + 1)
    at = get_i64(of_class + 8 * GATE_UP) + 8 * SEGMENT_FIELDS * number
    put_i64(at, get_i64(weights))
    put_i64(at + 8, get_i64(weights + 8))
    put_i64(at + 16, source * get_i64(of_class + 8 * SOURCE_STRIDE))
    put_i64(at + 24, source * get_i64(of_class + 8 * GROUP_STRIDE))
    put_i64(at + 32, row * get_i64(of_class + 8 * H_STRIDE))
    put_i64(at + 40, count)
    at = get_i64(of_class + 8 * DOWN) + 8 * SEGMENT_FIELDS * number
    put_i64(at, get_i64(weights + 16))
    put_i64(at + 8, 0)
    put_i64(at + 16, row * get_i64(of_class + 8 * H_CODES_STRIDE))
    put_i64(at + 24, row * get_i64(of_class + 8 * H_GROUP_STRIDE))
    put_i64(at + 32, place * get_i64(of_class + 8 * Y_STRIDE))
    put_i64(at + 40, count)


@njit(**_INLINE)
def _copy_row(of_class: int, copy: int, token: int, row: int) -> None:
    """A token as `prepare` left it, in its copy of that number, to a row of the class."""
    width, group_bytes = get_i64(of_class + 8 * SOURCE_STRIDE), get_i64(of_class + 8 * GROUP_STRIDE)
    source = get_i64(of_class + 8 * SOURCE) + copy * get_i64(of_class + 8 * SOURCE_PRIVATE) + token * width
    copy_bytes(get_i64(of_class + 8 * GATHERED) + row * width, source, width)
    if group_bytes != 0:
        offset = copy * get_i64(of_class + 8 * PRIVATE_GROUPS) + token * group_bytes
        factors, starts = get_i64(of_class + 8 * FACTORS) + offset, get_i64(of_class + 8 * STARTS) + offset
        copy_bytes(get_i64(of_class + 8 * GATHERED_FACTORS) + row * group_bytes, factors, group_bytes)
        copy_bytes(get_i64(of_class + 8 * GATHERED_STARTS) + row * group_bytes, starts, group_bytes)


@kernel
def gather(op: int, me: int) -> None:
    """The rows of a class, in order, from its tokens; few tokens `group` has copied already."""
    if get_i64(field(op, STATE)) <= PRIVATE_ROWS:
        return
    of_class = field(op, GATHER_CLASS)
    rows, origins = get_i64(of_class + 8 * ROWS), get_i64(of_class + 8 * ORIGINS)
    begin = take(op, _ROWS_A_CHUNK)
    while begin < rows:
        for row in range(begin, min(begin + _ROWS_A_CHUNK, rows)):
            _copy_row(of_class, 0, get_i32(origins + 4 * row), row)
        begin = take(op, _ROWS_A_CHUNK)


@kernel
def combine(op: int, me: int) -> None:
    """x += the weighted sum of a token's outputs, in the order of its choice, wherever they come from."""
    tokens = get_i64(field(op, STATE))
    columns = (field(op, COMBINE_COLUMNS) + 15) // 16 * 16
    parts = (columns + _COLUMNS_A_PART - 1) // _COLUMNS_A_PART
    unit = take(op, 1)
    while unit < tokens * parts:
        begin = unit % parts * _COLUMNS_A_PART
        _combine_part(op, unit // parts, begin, min(begin + _COLUMNS_A_PART, columns))
        unit = take(op, 1)


@njit(**_INLINE)
def _combine_part(op: int, row: int, begin: int, end: int) -> None:
    top_k = field(op, COMBINE_TOP_K)
    places, weights = field(op, COMBINE_PLACES) + 4 * row * top_k, field(op, COMBINE_WEIGHTS) + 4 * row * top_k
    x, y, stride = (
        field(op, COMBINE_X) + row * field(op, COMBINE_X_STRIDE),
        field(op, COMBINE_Y),
        field(op, COMBINE_Y_STRIDE),
    )
    column = begin
    while column + 64 <= end:
        a = splat_f32(as_f32(0.0))
        b, c, d = a, a, a
        for choice in range(top_k):
            weight = splat_f32(get_f32(weights + 4 * choice))
            at = y + get_i32(places + 4 * choice) * stride + 4 * column
            a, b = fma(weight, load_f32(at), a), fma(weight, load_f32(at + 64), b)
            c, d = fma(weight, load_f32(at + 128), c), fma(weight, load_f32(at + 192), d)
        at = x + 4 * column
        store_f32(at, add(load_f32(at), a))
        store_f32(at + 64, add(load_f32(at + 64), b))
        store_f32(at + 128, add(load_f32(at + 128), c))
        store_f32(at + 192, add(load_f32(at + 192), d))
        column += 64
    while column < end:
        a = splat_f32(as_f32(0.0))
        for choice in range(top_k):
            at = y + get_i32(places + 4 * choice) * stride + 4 * column
            a = fma(splat_f32(get_f32(weights + 4 * choice)), load_f32(at), a)
        store_f32(x + 4 * column, add(load_f32(x + 4 * column), a))
        column += 16
