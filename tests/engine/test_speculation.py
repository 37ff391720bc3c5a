"""Guessing: what prompt look-up finds, and when guessing stops. Times are given, never measured."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from deepseek.engine.pace import Pace
from deepseek.engine.speculation import Guessing, PromptLookup, Speculator, TextDrafter


def sequence(ids: list[int]) -> Any:
    return SimpleNamespace(token_ids=ids, draft_state=None, guessing=None)


@pytest.mark.parametrize(
    ("ids", "drafts"),
    [
        ([1, 2, 3, 4, 5, 6, 1, 2, 3], [4, 5, 6, 1]),
        ([1, 2, 3, 9, 1, 2, 3, 8, 1, 2, 3], [8, 1, 2, 3]),  # the newest occurrence
        ([9, 5, 6, 7, 5, 6, 7], [5, 6, 7, 5]),  # goes on periodically
        ([4, 4, 4, 4], [4, 4, 4, 4]),
        ([1, 2, 3, 4], []),
        ([1, 2], []),
    ],
)
def test_prompt_lookup(ids: list[int], drafts: list[int]) -> None:
    assert PromptLookup(3).guess(sequence(ids), 4) == drafts


def test_prompt_lookup_keeps_up_with_a_growing_sequence() -> None:
    ids = [1, 2, 3, 4, 1, 2, 3, 4, 5, 1, 2, 3, 4, 1, 2]
    growing = sequence(ids[:1])
    lookup = PromptLookup(2)
    for end in range(1, len(ids) + 1):
        growing.token_ids = ids[:end]
        assert lookup.guess(growing, 3) == PromptLookup(2).guess(sequence(ids[:end]), 3)


def pace_of(seconds: dict[int, float]) -> Pace:
    pace = Pace()
    for rows, time in seconds.items():
        pace.observe(rows, 0, time)
    return pace


class Guesses(TextDrafter):
    """Always the same guesses."""

    def guess(self, sequence: Any, limit: int) -> list[int]:
        return [7] * limit


def proposed(speculator: Speculator, one: Any, rows: int, room: int) -> list[int]:
    """For a single sequence."""
    (drafts,) = speculator.propose([(one, room)], rows, room)
    return drafts


@pytest.mark.parametrize(
    ("share", "seconds", "count"),
    [
        (0.9, {1: 1.0, 9: 1.2}, 8),  # rows nearly for nothing, guesses good
        (0.9, {1: 1.0, 2: 1.1, 9: 9.0}, 1),  # one more row costs little, eight much
        (0.1, {1: 1.0, 2: 1.2, 9: 3.0}, 0),
        (0.5, {1: 1.0, 2: 1.6, 9: 9.0}, 0),
    ],
)
def test_as_many_guesses_as_pay(share: float, seconds: dict[int, float], count: int) -> None:
    speculator = Speculator(Guesses(), pace_of(seconds), max_drafts=8)
    one = sequence([1])
    one.guessing = Guessing(share)
    assert len(proposed(speculator, one, 1, 100)) == count


def test_many_rows_make_a_guess_worth_less() -> None:
    """Beside fifteen others, the same extra time slows sixteen sequences to speed up one."""
    one = sequence([1])
    one.guessing = Guessing(0.6)
    assert proposed(Speculator(Guesses(), pace_of({1: 1.0, 3: 1.2})), one, 1, 2)
    assert not proposed(Speculator(Guesses(), pace_of({16: 1.0, 18: 1.2})), one, 16, 2)


class SlowGuesses(Guesses):
    def seconds(self, sequences: int) -> float:
        return 0.5 * sequences


def test_guesses_that_take_long_to_make_must_gain_as_much() -> None:
    for drafter, count in ((Guesses(), 1), (SlowGuesses(), 0)):
        one = sequence([1])
        one.guessing = Guessing(0.5)
        assert len(proposed(Speculator(drafter, pace_of({1: 1.0, 2: 1.1, 9: 9.0})), one, 1, 1)) == count


def test_guessing_stops_where_it_does_not_pay_and_is_tried_again_ever_less() -> None:
    speculator = Speculator(Guesses(), pace_of({1: 1.0, 2: 1.3, 3: 1.6, 9: 4.0}))
    one = sequence([1])
    tries = []
    for step in range(3000):
        if drafts := proposed(speculator, one, 1, 100):
            tries.append(step)
            speculator.learn(one, len(drafts), 0)
        one.token_ids.append(1)
    pauses = [after - before for before, after in pairwise(tries) if after - before > 1]
    assert pauses[:4] == [65, 129, 257, 257]
    assert len(tries) < 30


def test_what_looked_bad_for_a_while_is_tried_again() -> None:
    """A neighbour slowed the machine when guesses were measured; when he has gone, guessing resumes."""
    pace = pace_of({1: 1.0, 2: 9.0, 3: 9.0, 9: 9.0})
    speculator = Speculator(Guesses(), pace)
    one = sequence([1])
    for _ in range(5000):
        drafts = proposed(speculator, one, 1, 100)
        if drafts:
            speculator.learn(one, len(drafts), len(drafts))
        for rows in {1, 1 + len(drafts)}:
            pace.observe(rows, 0, 1.0 + 0.01 * rows)
        one.token_ids += [1] * (1 + len(drafts))
    assert len(drafts) == 8


def test_good_guesses_go_on() -> None:
    speculator = Speculator(Guesses(), pace_of({1: 1.0, 2: 1.1, 9: 2.0}))
    one = sequence([1])
    for _ in range(200):
        drafts = proposed(speculator, one, 1, 100)
        assert drafts
        speculator.learn(one, len(drafts), len(drafts))
    assert len(drafts) == 8
    assert len(proposed(speculator, one, 1, 3)) == 3


def test_pace_between_and_beyond_what_was_measured() -> None:
    pace = pace_of({2: 1.0, 4: 2.0})
    assert pace.step_seconds(3) == pytest.approx(1.5)
    assert 2.0 < pace.step_seconds(8) < 4.0
    assert 0.5 <= pace.step_seconds(1) < 1.0
    assert Pace().step_seconds(1) == 0.0
    assert pace.steps_within(2, 4.5) == 4
    assert pace.steps_within(2, 0.1) == 1


def test_a_slow_first_call_is_forgotten() -> None:
    pace = pace_of({1: 30.0})
    pace.observe(1, 0, 1.0)
    assert pace.step_seconds(1) == 1.0
    for _ in range(100):
        pace.observe(1, 0, 2.0)
    assert pace.step_seconds(1) == pytest.approx(2.0, abs=0.01)
    pace.observe(0, 100, 100.0)
    pace.observe(0, 100, 1.0)
    assert pace.prompt_room(0, 1.0) == 100


def test_room_for_prompts_beside_decoding() -> None:
    pace = pace_of({2: 0.02})
    assert pace.prompt_room(2, 0.1) == 64
    for _ in range(100):
        pace.observe(2, 500, 0.52)
    assert pace.prompt_room(2, 0.1) == pytest.approx(80, abs=1)
    assert pace.prompt_room(0, 0.1) == pytest.approx(100, abs=1)
