"""The team walks through plans together: barriers, rounds, cancelling, a busy neighbour, sleep and an end."""

import faulthandler
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from deepseek.kernels.memory import SLEEP_MICROSECONDS, atomic_add, atomic_load, atomic_store, field, get_i64, put_i64
from deepseek.kernels.plan import (
    ALWAYS,
    BARRIER,
    CANCEL,
    NEVER,
    PRIVATE_ROWS,
    STATE,
    STATE_ENDED,
    STATE_ROUND,
    WHEN_SHARED,
    kernel,
    take,
)
from deepseek.kernels.team import IDLE_SLEEP_MICROSECONDS, Job, Team, aligned, team_of
from kernel_plans import Plan, room

SOURCE, TARGET, COUNT, SLOT, VALUE, MEMBERS = range(4, 10)
ELEMENTS = 64


@pytest.fixture(params=[1, 2, 3], ids="{} threads".format)
def threads(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(autouse=True)
def no_waiting_for_ever() -> Iterator[None]:
    """Threads that wait for each other end the whole run, with all their stacks, instead of stopping it."""
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def team() -> Iterator[Team]:
    team = Team(3)
    yield team
    team.close()


@kernel
def sum_all(op: int, me: int) -> None:
    """target[i] = i + the sum of all of source, each thread its share: wrong if another still writes source.

    Member VALUE dawdles, so that whoever does not wait for it is seen.
    """
    count, dawdled = field(op, COUNT), 0
    if me == field(op, VALUE):
        for turn in range(5000):
            dawdled += get_i64(field(op, SOURCE) + 8 * (turn % count)) & turn
    for place in range(me, count, field(op, MEMBERS)):
        total = dawdled - dawdled
        for other in range(count):
            total += get_i64(field(op, SOURCE) + 8 * other)
        put_i64(field(op, TARGET) + 8 * place, (total + place) % 1_000_003)


@kernel
def count_taken(op: int, me: int) -> None:
    """Adds 1 to each of COUNT places, in chunks of VALUE."""
    begin = take(op, field(op, VALUE))
    while begin < field(op, COUNT):
        for place in range(begin, min(begin + field(op, VALUE), field(op, COUNT))):
            put_i64(field(op, TARGET) + 8 * place, get_i64(field(op, TARGET) + 8 * place) + 1)
        begin = take(op, field(op, VALUE))


@kernel
def pass_by(op: int, me: int) -> None:
    """Counts who comes by, each thread for itself; member VALUE sets what is at SLOT."""
    atomic_add(field(op, TARGET) + 64 * me, 1)
    if me == field(op, VALUE) and field(op, SLOT) != 0:
        atomic_store(field(op, SLOT), 1)


@kernel
def count_end(op: int, me: int) -> None:
    """All rows need no further round when round VALUE is over."""
    state = field(op, STATE)
    atomic_add(field(op, TARGET) + 64 * me, 1)
    if me == 0 and atomic_load(state + 8 * STATE_ROUND) == field(op, VALUE):
        atomic_store(state + 8 * STATE_ENDED, get_i64(state))


def summing_plan(threads: int, operations: int) -> tuple[Plan, np.ndarray]:
    plan, values = Plan(PRIVATE_ROWS + 1), room((operations + 1, ELEMENTS), np.int64)
    values[0] = np.arange(ELEMENTS)
    for number in range(operations):
        columns = {SOURCE: values[number], TARGET: values[number + 1], COUNT: ELEMENTS}
        plan.add(sum_all, columns | {VALUE: number % threads, MEMBERS: threads}, (ALWAYS, WHEN_SHARED)[number % 2])
    return plan, values


def check_sums(values: np.ndarray) -> None:
    for before, after in pairwise(values):
        np.testing.assert_array_equal(after, (before.sum() + np.arange(ELEMENTS)) % 1_000_003)


def counting_plan(threads: int, operations: int) -> tuple[Plan, np.ndarray]:
    plan, visits = Plan(3), room((operations, threads, 8), np.int64)
    for number in range(operations):
        plan.add(pass_by, {TARGET: visits[number]})
    return plan, visits[:, :, 0]


def job_of(plan: Plan) -> Job:
    return Job(plan.table, plan.counters.reshape(-1), plan.state)


def test_operations_wait_for_each_other(threads: int) -> None:
    plan, values = summing_plan(threads, 40)
    for _ in range(5):
        values[1:] = 0
        assert not plan.run(threads)
        check_sums(values)


def test_thousands_of_steps_in_a_row(threads: int) -> None:
    plan, visits = counting_plan(threads, 3)
    for _ in range(2000):
        plan.run(threads)
    assert (visits == 2000).all()


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_work_is_handed_out_once_in_each_round(threads: int, chunk: int) -> None:
    plan, counts = Plan(3), room((4, ELEMENTS), np.int64)
    for number in range(4):
        plan.add(count_taken, {TARGET: counts[number], COUNT: ELEMENTS, VALUE: chunk})
    for turn in range(1, 20):
        plan.run(threads, rounds=5)
        assert (counts == 5 * turn).all()


def test_rounds_go_on_where_the_last_one_ended(threads: int) -> None:
    plan, values = summing_plan(threads, 4)
    plan.table[0, SOURCE] = plan.table[-1, TARGET]
    plan.set(BARRIER, ALWAYS)
    plan.run(threads, rounds=6)
    before = np.zeros(ELEMENTS, np.int64)
    for _ in range(24):
        before = (before.sum() + np.arange(ELEMENTS)) % 1_000_003
    np.testing.assert_array_equal(values[-1], before)


def test_rounds_end_early_when_no_row_needs_more(threads: int) -> None:
    visits = room((threads, 8), np.int64)
    plan = Plan(3)
    plan.add(count_end, {TARGET: visits, VALUE: 4})
    plan.run(threads, rounds=9)
    assert (visits[:, 0] == 5).all()
    plan.run(threads, rounds=2)
    assert (visits[:, 0] == 7).all()


def test_a_plan_without_barriers_has_ended_when_run_returns(threads: int) -> None:
    visits = room((threads, 8), np.int64)
    plan = Plan(1)
    for _ in range(20):
        plan.add(pass_by, {TARGET: visits}, barrier=NEVER)
    for turn in range(1, 50):
        plan.run(threads)
        assert (visits[:, 0] == 20 * turn).all()


@pytest.mark.parametrize("who", [0, 1, 2])
def test_all_leave_a_cancelled_step_at_the_same_place(team: Team, who: int) -> None:
    plan, visits = counting_plan(3, 50)
    plan.table[20, SLOT], plan.table[20, VALUE] = team._address + CANCEL, who
    for turn in range(1, 200):
        assert team.run(job_of(plan), shared=True)
        assert (visits == visits[:, :1]).all(), turn
        assert (visits[:21] == turn).all()
        assert not visits[22:].any()
    assert who != 0 or not visits[21].any()

    plan.table[20, SLOT] = 0
    before = visits.copy()
    assert not team.run(job_of(plan), shared=True)
    assert (visits == before + 1).all()


def test_cancelling_from_another_thread(team: Team) -> None:
    """At any moment: all members have done the same operations, and the step says whether it was ended."""
    plan, visits = counting_plan(3, 60)
    over = threading.Event()

    def cancel_often() -> None:
        while not over.is_set():
            team.cancel()
            time.sleep(0.0001)

    canceller = threading.Thread(target=cancel_often)
    canceller.start()
    cancelled = 0
    try:
        while cancelled < 200:
            before = visits.copy()
            stopped = team.run(job_of(plan), shared=True)
            done = visits - before
            assert (done == done[:, :1]).all()
            assert (np.diff(done[:, 0]) <= 0).all()
            assert stopped or done.all()
            cancelled += stopped
    finally:
        over.set()
        canceller.join()
    team.forget_cancel()
    assert not team.run(job_of(plan), shared=True)


def test_a_cancel_that_comes_too_late_does_not_hit_the_next_step(team: Team) -> None:
    plan, visits = counting_plan(3, 2)
    plan.table[1, SLOT], plan.table[1, BARRIER] = team._address + CANCEL, NEVER
    assert not team.run(job_of(plan), shared=True)
    plan.table[1, SLOT] = 0
    assert not team.run(job_of(plan), shared=True)
    assert (visits == 2).all()


def test_a_busy_neighbour_only_slows(threads: int) -> None:
    """Threads of Python that never rest; the team has to get through all the same."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            sum(range(1000))

    neighbours = [threading.Thread(target=work) for _ in range(2)]
    for neighbour in neighbours:
        neighbour.start()
    try:
        plan, values = summing_plan(threads, 20)
        for _ in range(5):
            plan.run(threads)
            check_sums(values)
    finally:
        over.set()
        for neighbour in neighbours:
            neighbour.join()


def test_steps_of_several_threads_take_turns() -> None:
    plans = [summing_plan(2, 30) for _ in range(3)]
    callers = [threading.Thread(target=lambda plan=plan: [plan.run(2) for _ in range(20)]) for plan, _ in plans]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for _, values in plans:
        check_sums(values)


def test_close_ends_the_workers() -> None:
    team = Team(3)
    plan, _ = counting_plan(3, 2)
    team.run(job_of(plan), shared=True)
    team.close()
    assert not any(worker.is_alive() for worker in team._workers)
    with pytest.raises(AssertionError):
        team.run(job_of(plan), shared=True)
    team.close()


COUNT_SLEEPS = """
import ctypes, json, llvmlite.binding, numpy as np
asked, counter = [], np.zeros(1, np.int64)
@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint32)
def pretend(microseconds):
    asked.append(microseconds)
    counter[0] = len(asked) >= 400
    return 0
llvmlite.binding.add_symbol("usleep", ctypes.cast(pretend, ctypes.c_void_p).value)
from numba import njit
from deepseek.kernels.memory import wait_until
from deepseek.kernels.team import IDLE_SLEEP_MICROSECONDS
@njit(nogil=True)
def wait(at):
    wait_until(at, 1, IDLE_SLEEP_MICROSECONDS)
wait(counter.ctypes.data)
print(json.dumps(asked))
"""


def test_idle_workers_sleep_longer_and_longer() -> None:
    """Sleeps are counted, not timed: in place of the system's function stands one that writes down what is asked."""
    done = subprocess.run([sys.executable, "-c", COUNT_SLEEPS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    asked = json.loads(done.stdout)
    assert len(asked) == 400
    assert asked == sorted(asked)
    assert (asked[0], asked[-1]) == (SLEEP_MICROSECONDS, IDLE_SLEEP_MICROSECONDS)
    assert sum(asked[: asked.index(IDLE_SLEEP_MICROSECONDS)]) < 200_000  # a fifth of a second after the last step


def test_teams_are_shared_by_size() -> None:
    assert team_of(2) is team_of(2)
    assert team_of(2) is not team_of(3)


def test_memory_is_aligned() -> None:
    for count in (1, 3, 1000):
        for align in (64, 4096):
            array = aligned(count, np.float32, align)
            assert array.ctypes.data % align == 0
            assert array.shape == (count,)
            assert not array.any()
