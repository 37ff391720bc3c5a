"""A plan: the table of operations of one step, which every member of the team walks through.

A row is ROW_FIELDS int64. The first four are the same for every kernel, the others are named by the kernel's own
module:
    0 FUNCTION   address of the kernel, void(op, me)
    1 COUNTER    address of its work counter, 0 at the start of a round: `take` hands out chunks
    2 BARRIER    whether the team meets afterwards: NEVER, ALWAYS, or WHEN_SHARED (see below)
    3 STATE      address of the step's state, an int64 array (see STATE_*)
The last two, HINT and HINT_BYTES, say what the next operation reads first: that is fetched into the cache meanwhile.

Row-wise preparation of few rows is cheaper done by every thread for itself than shared: with at most PRIVATE_ROWS
tokens each thread prepares all of them in a place of its own, and WHEN_SHARED barriers fall away.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

from numba import cfunc, njit, types

from deepseek.kernels import compile_cache  # noqa: F401  sets where compiled code goes
from deepseek.kernels.memory import (
    atomic_add,
    atomic_load,
    atomic_store,
    call_kernel,
    fetch,
    field,
    fill_zero,
    get_i64,
    meet,
    put_i64,
)

ROW_FIELDS = 40
ROW_BYTES = 8 * ROW_FIELDS
FUNCTION, COUNTER, BARRIER, STATE = range(4)
HINT, HINT_BYTES = ROW_FIELDS - 2, ROW_FIELDS - 1
NEVER, ALWAYS, WHEN_SHARED = range(3)
PRIVATE_ROWS = 2

# Slots of the state. Counts of rows that a kernel may be told to run over, and where a step's tables are.
STATE_TOKENS, STATE_LOGIT_ROWS, STATE_CHUNKS, STATE_TILES, STATE_EXPANDED_TILES, STATE_ABSORBED_TILES = range(6)
STATE_TEAM = 12  # members that an operation may divide its work among beforehand; 0: it does not
STATE_PARTS = 13  # in how many parts attention takes the keys of each tile; 0: each tile's at once
STATE_ROUND, STATE_ENDED = 14, 15  # the round that runs, from 0; rows that need no further round
STATE_SLOTS = 16

# The control block, in bytes: one cache line each.
SEQUENCE, STOP, MEETING, DONE, CANCEL, AGREED, JOB, CANCELLED = (64 * line for line in range(8))
CONTROL_BYTES = 512
# Within JOB: plan, rows of it, rounds, whether preparation is shared, counters and their bytes.
JOB_PLAN, JOB_ROWS, JOB_ROUNDS, JOB_SHARED, JOB_COUNTERS, JOB_COUNTER_BYTES, JOB_STATE = (
    JOB + 8 * slot for slot in range(7)
)


class Kernel:
    """A function that becomes native code when its address is first asked for, or comes from the disk cache.

    It may close over whole numbers only: those take part in the cache's key, functions would not.
    """

    def __init__(self, function: Callable[[int, int], None]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    @cached_property
    def _compiled(self) -> Any:
        return cfunc(types.void(types.int64, types.int64), nopython=True, cache=True)(self.function)

    @property
    def address(self) -> int:
        return int(self._compiled.address)


def kernel(function: Callable[[int, int], None]) -> Kernel:
    """Decorates `(op, me) -> None`."""
    return Kernel(function)


@njit(nogil=True, error_model="numpy")
def take(op: int, chunk: int) -> int:
    """The start of the next chunk of this operation's work, for the calling thread alone."""
    return atomic_add(field(op, 1), chunk)


@njit(nogil=True, error_model="numpy")
def end_of_share(me: int, other: int, team: int, total: int) -> int:
    """Where the share of the member `other` places after `me` ends."""
    return total * ((me + other) % team + 1) // team


@njit(nogil=True, error_model="numpy")
def take_share(op: int, me: int, other: int, team: int, total: int, chunk: int) -> int:
    """The start of the next chunk of that member's share, -1 if there is none left.

    A member works through its own contiguous share first, so that what it fetches ahead is its own; then it helps the
    others with theirs.
    """
    owner = (me + other) % team
    begin = total * owner // team + atomic_add(field(op, COUNTER) + 64 * owner, chunk)
    return begin if begin < total * (owner + 1) // team else -1


@njit(nogil=True, cache=True, error_model="numpy")
def run_plan(control: int, me: int, team: int) -> None:
    """Member `me`'s walk through the job in the control block. Sets CANCELLED if the cancel flag ended it.

    The cancel flag is read by member 0 before each barrier and told to the others behind it, in two slots by turns:
    so all leave at the same place. Rounds end early when STATE_ENDED has reached the number of tokens; the plan's last
    operation, behind which the team meets, is what counts it.
    """
    plan, rows, rounds = get_i64(control + JOB_PLAN), get_i64(control + JOB_ROWS), get_i64(control + JOB_ROUNDS)
    shared, state = get_i64(control + JOB_SHARED), get_i64(control + JOB_STATE)
    meetings = 0
    for turn in range(rounds):
        for index in range(rows):
            op = plan + index * ROW_BYTES
            fetch(op + ROW_BYTES, ROW_BYTES if index + 1 < rows else 0)
            fetch(field(op, HINT), field(op, HINT_BYTES))
            call_kernel(field(op, 0), op, me)
            barrier = field(op, 2)
            if barrier == ALWAYS or (barrier == WHEN_SHARED and shared != 0):
                slot = control + AGREED + 8 * (meetings & 1)
                meetings += 1
                if me == 0:
                    atomic_store(slot, atomic_load(control + CANCEL))
                meet(control + MEETING, team)
                if atomic_load(slot) != 0:
                    if me == 0:
                        atomic_store(control + CANCELLED, 1)
                    return
        if turn + 1 == rounds or atomic_load(state + 8 * STATE_ENDED) >= get_i64(state):
            return
        meet(control + MEETING, team)
        if me == 0:
            fill_zero(get_i64(control + JOB_COUNTERS), get_i64(control + JOB_COUNTER_BYTES))
            put_i64(state + 8 * STATE_ROUND, turn + 1)
        meet(control + MEETING, team)
