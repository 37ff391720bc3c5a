"""How fast this machine reads memory right now: the ceiling for decoding, which reads every active weight once a token.

Measured by plain reads of a buffer far larger than any cache, one half a thread. The best pass counts: a pass that a
neighbour disturbed says nothing about the limit, and a limit taken too low would flatter everybody.
"""

import threading
import time
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from deepseek.kernels import compile_cache  # noqa: F401  sets where compiled code goes

BUFFER_BYTES = 512 << 20
LEAST_PASSES, SECONDS = 5, 0.5


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _total(values: Any) -> int:
    total = 0
    for value in values:
        total += value
    return total


class MemoryLimit:
    """Holds the buffer, so that a measurement allocates nothing."""

    def __init__(self, threads: int, *, buffer_bytes: int | None = None) -> None:
        size = (buffer_bytes or BUFFER_BYTES) // 8 // threads
        self._parts: list[NDArray[np.int64]] = [np.ones(size, np.int64) for _ in range(threads)]
        self.buffer_bytes = 8 * size * threads
        _total(self._parts[0])  # compiles

    def measure(self) -> float:
        """Bytes a second."""
        times: list[float] = []
        begun = time.perf_counter()
        while len(times) < LEAST_PASSES or time.perf_counter() - begun < SECONDS:
            times.append(self._pass())
        return self.buffer_bytes / min(times)

    def _pass(self) -> float:
        """Seconds from the moment when all threads are there to the moment when the last has read its part."""
        gate = threading.Barrier(len(self._parts))
        spans: list[tuple[float, float]] = []

        def read(part: NDArray[np.int64]) -> None:
            gate.wait()
            begun = time.perf_counter()
            total = _total(part)
            spans.append((begun, time.perf_counter()))
            assert total == part.size, "the buffer holds ones"

        threads = [threading.Thread(target=read, args=(part,)) for part in self._parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return max(end for _, end in spans) - min(begun for begun, _ in spans)
