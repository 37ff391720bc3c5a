"""Seconds of computing, without those in which the machine was stopped or asleep."""

from collections import deque
from statistics import median

_REMEMBERED = 31
_AT_MOST = 3.0  # times the median: a longer step was interrupted


class StepClock:
    """Adds up the durations of steps. One that took far longer than the steps before it counts as one of these."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)

    def add(self, duration: float) -> None:
        usual = median(self._recent) if len(self._recent) >= 3 else duration
        self.seconds += duration if duration <= _AT_MOST * usual else usual
        self._recent.append(duration)
