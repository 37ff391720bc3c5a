"""Rates over the last seconds, for people who look and for `Retry-After`."""

import time
from collections import deque
from collections.abc import Callable

SECONDS = 10


class Recent:
    """Sums by the second, of the last SECONDS whole ones and the one that runs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._sums: deque[list[float]] = deque(maxlen=SECONDS + 1)  # second, prompt tokens, generated tokens, answers

    def add(self, *, prompt_tokens: int = 0, generated_tokens: int = 0, ended: int = 0) -> None:
        second = int(self._clock())
        if not self._sums or self._sums[-1][0] != second:
            self._sums.append([second, 0, 0, 0])
        sums = self._sums[-1]
        sums[1] += prompt_tokens
        sums[2] += generated_tokens
        sums[3] += ended

    def prompt_per_second(self) -> float:
        return self._rate(1)

    def generated_per_second(self) -> float:
        return self._rate(2)

    def ended_per_second(self) -> float:
        return self._rate(3)

    def _rate(self, column: int) -> float:
        now = self._clock()
        total = sum(sums[column] for sums in self._sums if sums[0] >= int(now) - SECONDS)
        return total / max(1.0, min(SECONDS + now % 1, now - self._begun))
