"""Rounds take turns, ratios are of neighbours in time, and limits belong to their round."""

import os
from typing import Any

import pytest

from deepseek.errors import DeepseekError
from deepseek.profiler.comparison import alternate
from deepseek.profiler.process import Neighbours, memory_of
from deepseek.profiler.work import Timing, Work, chosen_work, standard_work

DECODE = Work(kind="decode", context=64, count=10)


class Scripted:
    """Takes the given seconds, run by run, and notes when it was called."""

    def __init__(self, name: str, seconds: list[float], calls: list[str]) -> None:
        self.name, self.seconds, self.calls = name, seconds, calls

    def tune(self, work: Work) -> dict[str, Any]:
        self.calls.append(f"tune {self.name}")
        return {"chosen by": self.name}

    def run(self, work: Work) -> Timing:
        self.calls.append(self.name)
        return Timing(seconds=self.seconds.pop(0), tokens=work.tokens, decode_seconds=0.5)

    def losses(self, window: list[int]) -> list[float]:
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        return {}


def test_sides_take_turns_and_change_who_begins() -> None:
    calls: list[str] = []
    a, b = Scripted("a", [1.0, 2.0, 4.0], calls), Scripted("b", [2.0, 6.0, 4.0], calls)
    limits = iter([100.0, 50.0, 25.0])
    row = alternate(DECODE, {"a": a, "b": b}, rounds=3, limit=lambda: next(limits), settled=lambda: calls.append("-"))
    assert calls == ["tune a", "tune b", *"-a-b-", *"-b-a-", *"-a-b-"]
    assert row.rate("a") == 5.0
    assert row.ratios("a", "b") == [2.0, 3.0, 1.0]
    assert row.ratio("a", "b") == 2.0
    assert row.share_of_limit("a", 5) == pytest.approx(0.5)  # 10, 5 and 2.5 tokens/s of 20, 10 and 5
    assert row.settings == {"a": {"chosen by": "a"}, "b": {"chosen by": "b"}}


def test_only_decoding_at_batch_1_has_a_share_of_the_limit() -> None:
    work = Work(kind="together", context=8, count=11, requests=4)
    row = alternate(work, {"a": Scripted("a", [2.0], [])}, rounds=1, limit=lambda: 1.0)
    assert row.share_of_limit("a", 5) is None
    assert row.rate("a") == 22.0
    assert row.decode_rate("a") == 80.0  # each first token belongs to the prompts


def test_disturbed_rounds_are_repeated_and_the_quietest_count() -> None:
    """By what the neighbours did, never by the result."""
    for shares, counted in (([0.5, 0.0, 0.3, 0.01], [2, 4]), ([0.5, 0.4, 0.3, 0.6, 0.2, 0.1], [5, 6])):
        told = iter(shares)
        side = Scripted("a", [float(number) for number in range(1, 7)], [])
        row = alternate(DECODE, {"a": side}, rounds=2, neighbours=lambda told=told: lambda: next(told))  # type: ignore[misc]
        assert [timing.seconds for timing in row.timings["a"]] == counted
        assert row.neighbours == max(shares[number - 1] for number in counted)


def test_rows_fit_the_model() -> None:
    longest = [work.context + work.count for work in standard_work(longest=600)]
    assert longest
    assert max(longest) <= 600
    assert len(list(standard_work(quick=True))) < len(list(standard_work()))


def test_rows_are_chosen_by_key() -> None:
    chosen = chosen_work(["together-16", "decode-500"])
    assert [(work.kind, work.context, work.requests) for work in chosen] == [("decode", 500, 1), ("together", 128, 16)]
    assert chosen_work([]) == list(standard_work())
    with pytest.raises(DeepseekError, match="unknown row 'decode-7'; this model has prompt-128, "):
        chosen_work(["decode-7"])


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="only Linux tells")
def test_own_work_is_no_neighbour() -> None:
    watch = Neighbours([os.getpid()])
    assert watch.share() is not None
    memory = memory_of()
    assert memory is not None
    assert 0 < memory["private"] < memory["resident"] <= memory["peak"]
