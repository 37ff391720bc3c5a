"""Speculative decoding: guess the next tokens cheaply, verify them all in one step, keep what was right.

The sequence's own sampler chooses at every place, so the text is the one without speculation; a wrong guess costs time
only. Where guesses do not pay, measured, none are made.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from deepseek.engine.pace import Pace
from deepseek.engine.sequence import Sequence

_PRIOR = 0.5  # share of guesses that are right, before any was verified
_WEIGHT = 0.1  # of the newest verification in the running share
_GAIN = 1.05  # speculation must promise so much more than a plain step
_PAUSE = 64  # tokens without guesses after they stopped paying
_LONGEST_PAUSE = 256
_TRIAL = 2  # guesses made after a pause, whatever they are thought to cost


class Drafter(Protocol):
    """Guesses, for all sequences of a step at once. May keep what it knows of one in `sequence.draft_state`."""

    def promise(self, sequence: Sequence, limit: int) -> int:
        """How many guesses, up to `limit`, `draft` may give; 0 where there is nothing to go by. Cheap: asked always."""
        ...

    def draft(self, wanted: list[tuple[Sequence, int]]) -> list[list[int]]:
        """For each sequence and number of tokens: at most so many that may follow."""
        ...

    def seconds(self, sequences: int) -> float:
        """What `draft` takes for so many sequences; 0.0 while nothing is known, or if it is nothing."""
        ...


class TextDrafter(ABC):
    """A drafter that goes by a sequence's tokens alone and takes no time to speak of."""

    @abstractmethod
    def guess(self, sequence: Sequence, limit: int) -> list[int]:
        """Up to `limit` tokens that may follow."""

    def promise(self, sequence: Sequence, limit: int) -> int:
        return len(self.guess(sequence, limit))

    def draft(self, wanted: list[tuple[Sequence, int]]) -> list[list[int]]:
        return [self.guess(sequence, count) for sequence, count in wanted]

    def seconds(self, sequences: int) -> float:
        return 0.0


class PromptLookup(TextDrafter):
    """What followed the last time that the newest `ngram` tokens occurred in the sequence, prompt or answer.

    An occurrence that overlaps the end goes on periodically.
    """

    def __init__(self, ngram: int = 3) -> None:
        self._ngram = ngram

    def guess(self, sequence: Sequence, limit: int) -> list[int]:
        ids, size = sequence.token_ids, self._ngram
        if sequence.draft_state is None:
            sequence.draft_state = (size, {})
        done, followers = sequence.draft_state
        for end in range(done, len(ids)):
            followers[tuple(ids[end - size : end])] = end
        sequence.draft_state = (max(len(ids), size), followers)
        begin = followers.get(tuple(ids[-size:]))
        if begin is None:
            return []
        period = len(ids) - begin
        return [ids[begin + place % period] for place in range(limit)]


@dataclass(slots=True)
class Guessing:
    """How guessing goes for one sequence.

    share_right: of the guesses, a running mean. resume_at: no guesses before the sequence is so long. pause: tokens
    left out the next time that guessing does not pay. is_trial: the next guesses are made to learn.
    """

    share_right: float
    resume_at: int = 0
    pause: int = _PAUSE
    is_trial: bool = False


class Speculator:
    """Asks the drafter as far as it pays: the more, the more of the sequence's guesses were right.

    Where it does not pay, it pauses, tries two guesses, and pauses the longer: what made it look bad may have passed.
    always: make every guess, whatever it costs (for tests and measurements).
    """

    def __init__(self, drafter: Drafter, pace: Pace, *, max_drafts: int = 8, always: bool = False) -> None:
        self._drafter = drafter
        self._pace = pace
        self._max_drafts = max_drafts
        self._always = always
        self._share_right = _PRIOR

    def propose(self, candidates: list[tuple[Sequence, int]], rows: int, room: int) -> list[list[int]]:
        """Guesses for each sequence, at most as many as stand beside it and `room` in all, for a step of `rows` rows
        without any.
        """
        awake = sum(len(sequence.token_ids) >= self._state(sequence).resume_at for sequence, _ in candidates)
        counts = []
        for sequence, limit in candidates:
            counts.append(self._count(sequence, min(self._max_drafts, limit, room), rows, awake))
            room -= counts[-1]
        wanted = [(sequence, count) for (sequence, _), count in zip(candidates, counts, strict=True) if count]
        drafts = iter(self._drafter.draft(wanted) if wanted else ())
        return [next(drafts) if count else [] for count in counts]

    def _count(self, sequence: Sequence, limit: int, rows: int, awake: int) -> int:
        """How many guesses to make for a sequence, one of `awake` that may want any."""
        state = self._state(sequence)
        if limit <= 0 or len(sequence.token_ids) < state.resume_at:
            return 0
        most = self._drafter.promise(sequence, limit)
        if not most or self._always:
            return most
        if state.is_trial:
            return min(_TRIAL, most)
        count = self._paying(state.share_right, rows, most, self._drafter.seconds(awake) / awake)
        if count:
            state.pause = _PAUSE
        else:
            state.resume_at = len(sequence.token_ids) + state.pause
            state.pause = min(2 * state.pause, _LONGEST_PAUSE)
            state.is_trial = True
        return count

    def learn(self, sequence: Sequence, drafted: int, accepted: int) -> None:
        """So many guesses were verified and so many of them were right."""
        right = accepted / min(accepted + 1, drafted)  # of those that the first wrong one did not cut off
        state = self._state(sequence)
        if state.is_trial and right == 1.0:
            state.share_right = max(state.share_right, _PRIOR)
        state.is_trial = False
        state.share_right += _WEIGHT * (right - state.share_right)
        self._share_right += _WEIGHT * (right - self._share_right)

    def _state(self, sequence: Sequence) -> Guessing:
        if sequence.guessing is None:
            sequence.guessing = Guessing(self._share_right)
        return sequence.guessing

    def _paying(self, share: float, rows: int, most: int, seconds: float) -> int:
        """The number of guesses with the best ratio of tokens to time; 0 if none beats a plain step.

        seconds: what drafting for this sequence takes.
        """
        plain = self._pace.step_seconds(rows)
        if not plain:
            return min(2, most)
        best, best_gain, expected, chance = 0, _GAIN, 0.0, 1.0
        for count in range(1, most + 1):
            chance *= share
            expected += chance
            gain = (rows + expected) / rows * plain / (self._pace.step_seconds(rows + count) + seconds)
            if gain > best_gain:
                best, best_gain = count, gain
        return best
