"""Speculative decoding: guess the next tokens cheaply, verify them all in one step, keep what was right.

The sequence's own sampler chooses at every place, so the text is the one without speculation; a wrong guess costs time
only. Where guesses do not pay, measured, none are made.
"""

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
    """Guesses. Keeps what it knows of a sequence in `sequence.draft_state`."""

    def draft(self, sequence: Sequence, limit: int) -> list[int]:
        """Up to `limit` tokens that may follow, none where there is nothing to go by. Cheap: called every step."""
        ...


class PromptLookup:
    """What followed the last time that the newest `ngram` tokens occurred in the sequence, prompt or answer.

    An occurrence that overlaps the end goes on periodically.
    """

    def __init__(self, ngram: int = 3) -> None:
        self._ngram = ngram

    def draft(self, sequence: Sequence, limit: int) -> list[int]:
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

    def propose(self, sequence: Sequence, rows: int, room: int) -> list[int]:
        """At most `room` guesses for a sequence in a step of `rows` rows."""
        state = self._state(sequence)
        if len(sequence.token_ids) < state.resume_at:
            return []
        limit = min(self._max_drafts, room)
        drafts = self._drafter.draft(sequence, limit) if limit > 0 else []
        if not drafts or self._always:
            return drafts
        if state.is_trial:
            return drafts[:_TRIAL]
        count = self._paying(state.share_right, rows, len(drafts))
        if count:
            state.pause = _PAUSE
        else:
            state.resume_at = len(sequence.token_ids) + state.pause
            state.pause = min(2 * state.pause, _LONGEST_PAUSE)
            state.is_trial = True
        return drafts[:count]

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

    def _paying(self, share: float, rows: int, most: int) -> int:
        """The number of guesses with the best ratio of tokens to time; 0 if none beats a plain step."""
        plain = self._pace.step_seconds(rows)
        if not plain:
            return min(2, most)
        best, best_gain, expected, chance = 0, _GAIN, 0.0, 1.0
        for count in range(1, most + 1):
            chance *= share
            expected += chance
            gain = (rows + expected) / rows * plain / self._pace.step_seconds(rows + count)
            if gain > best_gain:
                best, best_gain = count, gain
        return best
