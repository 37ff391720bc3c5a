"""One team of threads for the process. Workers never return to Python between steps (docs/decisions/011).

The caller of a step is member 0 and works too. Members meet at a barrier after each operation that says so; work
within an operation is handed out in chunks, so that a busy neighbour costs what it takes and not half of everything.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from deepseek.kernels import compile_cache  # noqa: F401  sets where compiled code goes
from deepseek.kernels.memory import atomic_add, atomic_load, atomic_store, wait_until
from deepseek.kernels.plan import (
    CANCEL,
    CANCELLED,
    CONTROL_BYTES,
    DONE,
    JOB,
    MEETING,
    ROW_FIELDS,
    SEQUENCE,
    STATE_ENDED,
    STATE_ROUND,
    STATE_SLOTS,
    STOP,
    run_plan,
)

IDLE_SLEEP_MICROSECONDS = 1_600
STEP_SLEEP_MICROSECONDS = 50


@njit(nogil=True, cache=True, error_model="numpy")
def _work(control: int, me: int, team: int) -> None:
    """A worker's whole life: wait for a step's number, take part, say so."""
    number = 0
    while True:
        number += 1
        wait_until(control + SEQUENCE, number, IDLE_SLEEP_MICROSECONDS)
        if atomic_load(control + STOP) != 0:
            return
        run_plan(control, me, team)
        atomic_add(control + DONE, 1)


@njit(nogil=True, cache=True, error_model="numpy")
def _step(control: int, team: int) -> int:
    """Member 0's part: let the others go, work, and wait until all have left the plan. 1 if it was cancelled."""
    number = atomic_add(control + SEQUENCE, 1) + 1
    run_plan(control, 0, team)
    wait_until(control + DONE, number * (team - 1), STEP_SLEEP_MICROSECONDS)
    return atomic_load(control + CANCELLED)


@njit(nogil=True, cache=True, error_model="numpy")
def _set(at: int, value: int) -> None:
    atomic_store(at, value)


@njit(nogil=True, cache=True, error_model="numpy")
def _let_go(control: int) -> None:
    atomic_store(control + STOP, 1)
    atomic_add(control + SEQUENCE, 1)


def aligned(count: int, dtype: type[np.generic] | str, align: int = 64) -> NDArray[Any]:
    """Zeros whose address is a multiple of `align`."""
    size = int(count) * np.dtype(dtype).itemsize
    raw = np.zeros(size + align, np.uint8)
    start = -raw.ctypes.data % align
    return raw[start : start + size].view(dtype)


class Job:
    """What one step runs: a plan, its work counters and its state. table: (rows, ROW_FIELDS) int64."""

    def __init__(
        self, table: NDArray[np.int64], counters: NDArray[np.int64], state: NDArray[np.int64] | None = None
    ) -> None:
        assert table.shape[1] == ROW_FIELDS
        self.table = table
        self.counters = counters
        self.state = np.zeros(STATE_SLOTS, np.int64) if state is None else state


class Team:
    """`threads` members, the caller included. Behind a lock: one step of one engine at a time."""

    def __init__(self, threads: int, *, pin: bool = True) -> None:
        self.threads = threads
        self._control = aligned(CONTROL_BYTES // 8, np.int64)
        self._address = self._control.ctypes.data
        self._lock = threading.Lock()
        self._closed = False
        self._cpus = sorted(os.sched_getaffinity(0)) if pin and hasattr(os, "sched_getaffinity") else []
        # Compile or load here, not in a worker: a compiler in two threads would take its lock by turns.
        _work.compile("void(int64, int64, int64)")
        _step.compile("int64(int64, int64)")
        _set.compile("void(int64, int64)")
        self._workers = [
            threading.Thread(target=self._live, args=(me,), name=f"deepseek-worker-{me}", daemon=True)
            for me in range(1, threads)
        ]
        for worker in self._workers:
            worker.start()

    def run(self, job: Job, *, shared: bool, rounds: int = 1, rows: int | None = None) -> bool:
        """Run a plan's first `rows` operations (all) so many times; True if `cancel` ended it. Releases the GIL."""
        with self._lock:
            assert not self._closed
            control, at = self._control, JOB // 8
            job.counters[:] = 0
            job.state[STATE_ROUND] = job.state[STATE_ENDED] = 0
            control[at : at + 7] = (
                *(job.table.ctypes.data, rows or len(job.table), rounds, shared),
                *(job.counters.ctypes.data, job.counters.nbytes, job.state.ctypes.data),
            )
            control[CANCELLED // 8] = 0
            with self._on_processor(0):
                stopped = bool(_step(self._address, self.threads))
            control[CANCEL // 8] = 0  # one that came too late for this step is not meant for the next
            return stopped

    def cancel(self) -> None:
        """Ask the step that runs now to stop between operations. From any thread."""
        _set(self._address + CANCEL, 1)

    def forget_cancel(self) -> None:
        """Take a `cancel` back that came when nothing ran."""
        _set(self._address + CANCEL, 0)

    def close(self) -> None:
        """End the workers. Nothing runs here any more."""
        with self._lock:
            self._closed = True
            _let_go(self._address)
            for worker in self._workers:
                worker.join()

    @contextlib.contextmanager
    def _on_processor(self, me: int) -> Iterator[None]:
        """Keep the calling thread where member `me` belongs: two members on one processor wait for each other.

        The caller's own choice is given back afterwards, as threads that it starts inherit it.
        """
        if not self._cpus or len(self._cpus) < self.threads:
            yield
            return
        before = os.sched_getaffinity(0)
        with contextlib.suppress(OSError):  # pinning is a hint: a container may forbid it
            os.sched_setaffinity(0, {self._cpus[me]})
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, before)

    def _live(self, me: int) -> None:
        with self._on_processor(me):
            _work(self._address, me, self.threads)


def default_threads() -> int:
    """As many as processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def team_of(threads: int) -> Team:
    """The process's team of that size, made when first asked for. Idle teams sleep."""
    return Team(threads)


assert MEETING < JOB
