"""The end of a step that goes on by itself: choose each row's token and make it the next round's input."""

from numba import njit

from deepseek.kernels.memory import atomic_add, field, get_f64, get_i32, get_i64, put_i32
from deepseek.kernels.plan import STATE, STATE_ENDED, STATE_LOGIT_ROWS, STATE_ROUND, kernel, take
from deepseek.kernels.sampling import sample_row_at

# Columns, after the first four of every row.
(LOGITS, LOGIT_STRIDE, VOCABULARY, CHOICES, ENDS, CHOSEN, CHOSEN_STRIDE, TOKENS, POSITIONS, SCRATCH,
 SCRATCH_BYTES) = range(4, 15)  # fmt: skip
"""CHOICES: CHOICE_FIELDS values of 8 bytes a row. ENDS: int32 token ids. CHOSEN: int32, CHOSEN_STRIDE bytes a round.
TOKENS, POSITIONS: int32 of each row; row r of the logits belongs to row r of the step."""
CHOICE_FIELDS = 9
TEMPERATURE, TOP_K, TOP_P, MIN_P, SEED, SAMPLE, DRAW, ENDS_FROM, ENDS_TO = range(CHOICE_FIELDS)
"""Of one row: temperature, top_p and min_p are float64, the others int64; its end tokens are ENDS[from:to]."""


@njit(nogil=True, error_model="numpy")
def _is_end(op: int, choice: int, token: int) -> bool:
    for place in range(get_i64(choice + 8 * ENDS_FROM), get_i64(choice + 8 * ENDS_TO)):
        if get_i32(field(op, ENDS) + 4 * place) == token:
            return True
    return False


@kernel
def choose_and_go_on(op: int, me: int) -> None:
    """A token of each row into CHOSEN, negative where there is none to choose (see `sampling`); rows ended count."""
    state = field(op, STATE)
    rows, turn = get_i64(state + 8 * STATE_LOGIT_ROWS), get_i64(state + 8 * STATE_ROUND)
    row = take(op, 1)
    while row < rows:
        choice = field(op, CHOICES) + 8 * CHOICE_FIELDS * row
        token = sample_row_at(
            field(op, LOGITS) + row * field(op, LOGIT_STRIDE), field(op, VOCABULARY),
            get_f64(choice + 8 * TEMPERATURE), get_i64(choice + 8 * TOP_K), get_f64(choice + 8 * TOP_P),
            get_f64(choice + 8 * MIN_P), get_i64(choice + 8 * SEED), get_i64(choice + 8 * SAMPLE),
            get_i64(choice + 8 * DRAW) + turn, field(op, SCRATCH) + me * field(op, SCRATCH_BYTES),
        )  # fmt: skip
        put_i32(field(op, CHOSEN) + turn * field(op, CHOSEN_STRIDE) + 4 * row, token)
        if token < 0 or _is_end(op, choice, token):
            atomic_add(state + 8 * STATE_ENDED, 1)
        put_i32(field(op, TOKENS) + 4 * row, max(token, 0))
        position = field(op, POSITIONS) + 4 * row
        put_i32(position, get_i32(position) + 1)
        row = take(op, 1)
