"""Rounds in which the sides take turns at the same work, and what a row of the table says about them."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deepseek.profiler.work import Side, Timing, Work

ROUNDS, QUICK_ROUNDS = 5, 3
MOST_ROUNDS = 3  # times as many
DISTURBED = 0.05  # of all processors


@dataclass(kw_only=True)
class Row:
    """One piece of work, all sides. timings: by side, one a round. limits: bytes a second, one a round.

    neighbours: the largest share of the processors that others used during a round, None where not known.
    """

    work: Work
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    timings: dict[str, list[Timing]] = field(default_factory=dict)
    limits: list[float] = field(default_factory=list)
    neighbours: float | None = None

    @property
    def rounds(self) -> int:
        return max(map(len, self.timings.values()), default=0)

    def rate(self, side: str) -> float:
        """Tokens a second, the median of the rounds."""
        return statistics.median(timing.rate for timing in self.timings[side])

    def decode_rate(self, side: str) -> float | None:
        """Of "together": only the part after the prompts, in which each request makes its tokens but the first."""
        parts = [timing.decode_seconds for timing in self.timings[side]]
        tokens = (self.work.count - 1) * self.work.requests
        rates = [tokens / seconds for seconds in parts if seconds]
        return statistics.median(rates) if rates else None

    def ratio(self, ours: str, theirs: str) -> float:
        """How many times as fast ours is: the median of the rounds' ratios, each of neighbours in time."""
        return statistics.median(self.ratios(ours, theirs))

    def ratios(self, ours: str, theirs: str) -> list[float]:
        """One a round."""
        return [a.rate / b.rate for a, b in zip(self.timings[ours], self.timings[theirs], strict=True)]

    def share_of_limit(self, side: str, bytes_per_token: int) -> float | None:
        """Of decoding at batch 1: bytes of weights read a second over what the machine could read, round by round."""
        if self.work.kind != "decode" or not self.limits:
            return None
        pairs = zip(self.timings[side], self.limits, strict=True)
        return statistics.median(timing.rate * bytes_per_token / limit for timing, limit in pairs)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Round:
    timings: dict[str, Timing]
    limit: float | None
    neighbours: float | None


def alternate(
    work: Work,
    sides: Mapping[str, Side],
    *,
    rounds: int = ROUNDS,
    limit: Callable[[], float] | None = None,
    neighbours: Callable[[], Callable[[], float | None]] | None = None,
    settled: Callable[[], None] = lambda: None,
) -> Row:
    """Let every side choose its settings, then measure A B, B A, A B ... so that no side always comes first.

    limit: measures the memory limit, in every round. settled: called before each timed piece; waits until the side
    before it is quiet. neighbours: starts to watch them and gives the function that tells their share; rounds in which
    it was above DISTURBED are repeated, up to MOST_ROUNDS times as many in all, and the quietest count.
    """
    row = Row(work=work, timings={name: [] for name in sides})
    for name, side in sides.items():
        row.settings[name] = side.tune(work)
    done: list[_Round] = []
    while _quiet(done) < rounds and len(done) < MOST_ROUNDS * rounds:
        order = list(sides) if len(done) % 2 == 0 else list(sides)[::-1]
        share = neighbours() if neighbours is not None else None
        timings = {}
        for name in order:
            settled()
            timings[name] = sides[name].run(work)
        found = None
        if limit is not None:
            settled()
            found = limit()
        done.append(_Round(timings=timings, limit=found, neighbours=share() if share is not None else None))
    for kept in sorted(sorted(range(len(done)), key=lambda i: done[i].neighbours or 0.0)[:rounds]):
        _add(row, done[kept])
    return row


def _quiet(done: list[_Round]) -> int:
    return sum((one.neighbours or 0.0) <= DISTURBED for one in done)


def _add(row: Row, one: _Round) -> None:
    for name, timing in one.timings.items():
        row.timings[name].append(timing)
    if one.limit is not None:
        row.limits.append(one.limit)
    if one.neighbours is not None:
        row.neighbours = max(one.neighbours, row.neighbours or 0.0)
