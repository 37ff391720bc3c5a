"""Long bodies of requests are read in one thread, which rests between them while answers are on their way.

Parsing megabytes holds the interpreter's lock for tens of milliseconds at a time, and a step of the engine takes that
lock hundreds of times: without rests, clients that send long bodies without end would stop everybody's answers.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")
RESTS = 5.0
"""So many times as long as it worked; a long prompt costs about as much again elsewhere."""


class LongBodies:
    def __init__(self, is_answering: Callable[[], bool]) -> None:
        """is_answering: whether somebody waits for tokens now."""
        self._is_answering = is_answering
        self._thread = ThreadPoolExecutor(1, "deepseek-bodies")
        self._rested_at = 0.0

    async def read(self, work: Callable[[], Result]) -> Result:
        """The result of work on a body."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._rested, work)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _rested(self, work: Callable[[], Result]) -> Result:
        left = self._rested_at - time.monotonic()
        if left > 0 and self._is_answering():
            time.sleep(left)
        worked = time.thread_time()
        try:
            return work()
        finally:
            self._rested_at = time.monotonic() + RESTS * (time.thread_time() - worked)
