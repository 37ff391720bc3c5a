"""How long steps take, learned while they run. Decides sizes of steps only: no text depends on it."""

_WEIGHT = 0.1  # of the newest measurement
_FIRST = 3  # measurements of which the fastest counts
_UNKNOWN_ROW = 0.05  # guessed cost of one more row, as a share of the step, until one was measured
_MEMORY = 1024  # steps after which what was not measured again is forgotten: the machine may be another by then
_FIRST_ROOM = 64  # prompt tokens beside decoding before anything was measured


class Pace:
    """Running means: seconds of a step by its number of decoded rows, and prompt tokens a second.

    The first measurements of a kind may hold a first call's work, so of them the fastest counts.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._counts: dict[int, int] = {}
        self._measured_at: dict[int, int] = {}
        self._steps = 0
        self._prompt_rate = 0.0
        self._prompt_count = 0

    def observe(self, rows: int, prompt_tokens: int, seconds: float) -> None:
        """One step took so long: `rows` rows that generate or verify, and `prompt_tokens` of prompts."""
        if seconds <= 0:
            return
        self._steps += 1
        if self._steps % 256 == 0:
            self._forget()
        if not prompt_tokens:
            self._measured_at[rows] = self._steps
            known = self._seconds.get(rows, seconds)
            count = self._counts[rows] = self._counts.get(rows, 0) + 1
            self._seconds[rows] = min(known, seconds) if count <= _FIRST else known + _WEIGHT * (seconds - known)
        elif prompt_tokens >= _FIRST_ROOM // 2:
            rate = prompt_tokens / max(seconds - self.step_seconds(rows), 0.1 * seconds)
            self._prompt_count += 1
            first, known = self._prompt_count <= _FIRST, self._prompt_rate
            self._prompt_rate = max(known, rate) if first else known + _WEIGHT * (rate - known)

    def _forget(self) -> None:
        for rows in [rows for rows, step in self._measured_at.items() if step < self._steps - _MEMORY]:
            del self._seconds[rows], self._counts[rows], self._measured_at[rows]

    def step_seconds(self, rows: int) -> float:
        """Expected seconds of a step of so many rows; 0.0 while nothing is known."""
        exact = self._seconds.get(rows)
        if exact is not None or not self._seconds or not rows:
            return exact or 0.0
        below = max((known for known in self._seconds if known < rows), default=0)
        above = min((known for known in self._seconds if known > rows), default=0)
        if below and above:
            share = (rows - below) / (above - below)
            return self._seconds[below] * (1 - share) + self._seconds[above] * share
        nearest = below or above
        return self._seconds[nearest] * max(1 + _UNKNOWN_ROW * (rows - nearest), 0.5)

    def prompt_room(self, rows: int, seconds: float) -> int:
        """Prompt tokens that fit beside so many decoded rows into a step of `seconds`."""
        if not self._prompt_rate:
            return _FIRST_ROOM
        return int(self._prompt_rate * (seconds - self.step_seconds(rows)))

    def steps_within(self, rows: int, seconds: float) -> int:
        """Decode steps that fit into `seconds`, at least one."""
        one = self.step_seconds(rows)
        return max(int(seconds / one), 1) if one else 1
