"""The engine with threads and event loops around it: queues, aborts, failures, the end."""

import asyncio
import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from deepseek.engine.batch import StepCancelled
from deepseek.engine.core import EngineFailure, QueueFull
from deepseek.engine.engine import Engine
from deepseek.engine.engine_config import EngineConfig
from deepseek.errors import GenerationError
from deepseek.sampling import SamplingParams
from engine_world import held, make_engine, one
from fake_runner import FakeRunner, HashSampler, expected
from scheduler_world import Oracle


@pytest.fixture
def engine() -> Iterator[Engine]:
    with make_engine() as engine:
        yield engine


def test_many_prompts_leave_the_queue_to_others() -> None:
    runner, engine = held(max_num_seqs=2)
    with engine, ThreadPoolExecutor(1) as pool:
        many = pool.submit(engine.generate, [[i] for i in range(10)], max_tokens=2, temperature=0)
        runner.in_run.wait()
        while engine._core.n_requests < 4:
            time.sleep(0.001)
        time.sleep(0.01)
        assert engine._core.n_requests == 4
        assert runner.hold
        runner.hold.set()
        assert len(many.result()) == 10  # type: ignore[arg-type]


def test_a_full_queue_refuses_and_names_its_setting() -> None:
    runner, engine = held(max_queue=2, max_num_seqs=1)
    with engine:
        streams = [engine.stream("a", max_tokens=2)]
        runner.in_run.wait()
        streams += [engine.stream("b", max_tokens=2) for _ in range(2)]
        with pytest.raises(QueueFull, match=r"the queue is full: 2 requests wait \(max_queue\)"):
            engine.stream("c")
        with pytest.raises(QueueFull):
            engine.generate("c")
        assert runner.hold
        runner.hold.set()
        assert [len(list(stream)) for stream in streams] == [2, 2, 2]
        assert len(list(engine.stream("c", max_tokens=2))) == 2


def test_an_id_is_used_once_at_a_time() -> None:
    runner, engine = held()
    with engine:
        stream = engine.stream("a", max_tokens=2, request_id="x")
        assert stream.id == "x"
        with pytest.raises(GenerationError, match="id 'x' is running already"):
            engine.stream("a", request_id="x")
        assert runner.hold
        runner.hold.set()
        list(stream)
        assert len(list(engine.stream("a", max_tokens=2, request_id="x"))) == 2


def test_abort_cuts_a_long_step_short() -> None:
    runner, engine = held()
    with engine:
        stream = engine.stream([1] * 250, max_tokens=2, n=2, request_id="long")
        runner.in_run.wait()
        other = engine.stream("ab", max_tokens=2)
        engine.abort("long")  # the runner would wait for ever otherwise
        assert [(event.token_id, event.finish_reason) for event in stream] == [(None, "abort")] * 2
        assert runner.hold
        runner.hold.set()
        assert [event.token_id for event in other] == expected([0, 1], SamplingParams(), 4)
        engine.abort("long")
        engine.abort("unknown")


def test_a_request_lives_until_its_last_sample_ends() -> None:
    params = SamplingParams(seed=1, n=2)
    first, second = (expected([0], params, 8, sample) for sample in range(2))
    stop = next(token for token in first if token not in second)
    runner, engine = held(max_decode_steps=1)
    runner.hold_from = first.index(stop) + 1
    with engine:
        stream = engine.stream("a", seed=1, n=2, max_tokens=700, stop_token_ids=[stop])
        assert next(event for event in stream if event.finish_reason).sample == 0
        engine.abort(stream.id)
        assert runner.hold
        runner.hold.set()
        assert [event.finish_reason for event in stream][-1] == "abort"


def test_a_cancelled_step_changes_nothing_for_the_others() -> None:
    runner = FakeRunner()
    with make_engine(runner, speculation="always") as engine:
        engine._core._scheduler.speculator._drafter = Oracle(4)  # type: ignore[union-attr]
        stream = engine.stream("abc", max_tokens=40, seed=1)
        tokens = []
        for event in stream:
            tokens.append(event.token_id)
            runner.fail_next = StepCancelled()
        assert tokens == expected([0, 1, 2], SamplingParams(seed=1), 43)
        assert stream.metrics.accepted_tokens > 20


@pytest.mark.parametrize("how", ["close", "with", "forget"])
def test_leaving_a_stream_aborts_it(engine: Engine, how: str) -> None:
    stream = engine.stream("ab", max_tokens=700, temperature=0)
    next(stream)
    if how == "close":
        stream.close()
    elif how == "with":
        with stream:
            pass
    del stream
    gc.collect()
    assert one(engine.generate("ab", max_tokens=3)).finish_reason == "length"
    assert engine._core.n_requests == 0
    assert engine._core._scheduler.blocks.pool.n_free == 200


def test_a_runner_that_fails_fails_its_requests_and_no_other() -> None:
    runner = FakeRunner()
    with make_engine(runner) as engine:
        runner.fail_next = MemoryError("no room")
        with pytest.raises(EngineFailure, match="a step of the engine did: MemoryError") as caught:
            engine.generate(["ab", "cd"])
        assert isinstance(caught.value.__cause__, MemoryError)
        assert one(engine.generate("ab", max_tokens=9, temperature=0)).token_ids == expected(
            [0, 1], SamplingParams(), 11
        )
        assert engine._core._scheduler.blocks.pool.n_free == runner.n_blocks


def test_a_sampler_that_fails_fails_its_own_request_only() -> None:
    class Touchy(HashSampler):
        def choose(self, logits: Any) -> Any:
            if self._key == (13, 1) and self._drawn == 2:
                raise ZeroDivisionError("a processor's bug")
            return super().choose(logits)

    runner = FakeRunner()
    with Engine(runner, None, EngineConfig(max_decode_steps=1), make_sampler=Touchy) as engine:
        good = engine.stream([1, 2], max_tokens=9, seed=3)
        with pytest.raises(EngineFailure, match="ZeroDivisionError"):
            engine.generate([1, 2], max_tokens=9, n=3, seed=13)
        assert [event.token_id for event in good] == expected([1, 2], SamplingParams(seed=3), 11)
        assert engine._core._scheduler.blocks.pool.n_free == runner.n_blocks


def test_a_bug_in_the_engine_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    with make_engine() as engine:
        monkeypatch.setattr(engine._core._scheduler, "schedule", lambda: 1 / 0)
        with pytest.raises(EngineFailure, match="ZeroDivisionError"):
            engine.generate("ab")
        engine._core._thread.join()
        with pytest.raises(EngineFailure, match="has stopped after an error"):
            engine.generate("ab")


@pytest.mark.parametrize("how", ["close", "forget"])
def test_the_thread_ends_with_the_engine(how: str) -> None:
    runner, engine = held()
    thread = engine._core._thread
    stream = engine.stream("ab", max_tokens=50)
    runner.in_run.wait()
    if how == "close":
        engine.close()
        engine.close()
        assert [event.finish_reason for event in stream] == ["abort"]
        with pytest.raises(GenerationError, match="the engine is closed"):
            engine.generate("ab")
    del engine
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    assert runner.closed


def test_many_coroutines_at_once(engine: Engine) -> None:
    async def answer(prompt: list[int]) -> list[int | None]:
        return [event.token_id async for event in engine.stream_async(prompt, max_tokens=6 + len(prompt), seed=2)]

    async def all_of_them() -> list[list[int | None]]:
        return await asyncio.gather(*(answer([i] * (i + 1)) for i in range(10)))

    params = SamplingParams(seed=2)
    for _ in range(2):  # a second loop gets its own mailbox
        assert asyncio.run(all_of_them()) == [expected([i] * (i + 1), params, 2 * i + 8) for i in range(10)]


def test_cancelling_a_task_aborts_its_request() -> None:
    runner, engine = held()

    async def main() -> None:
        task = asyncio.create_task(consume())
        await asyncio.to_thread(runner.in_run.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert runner.hold
        runner.hold.set()
        async with engine.stream_async("ab", max_tokens=600) as stream:
            async for event in stream:
                assert event.text
                break
        assert [event.finish_reason async for event in engine.stream_async("ab", max_tokens=2)] == [None, "length"]
        assert not next(iter(engine._loops.values()))._queues

    async def consume() -> None:
        async for _ in engine.stream_async("abc", max_tokens=700):
            pass

    with engine:
        asyncio.run(main())
        assert engine._core.n_requests == 0


def test_a_loop_that_has_gone_disturbs_nobody() -> None:
    runner, engine = held()

    async def leave() -> Any:
        return engine.stream_async("abc", max_tokens=50)

    with engine:
        stream = asyncio.run(leave())
        assert runner.hold
        runner.hold.set()
        assert one(engine.generate("ab", max_tokens=60)).finish_reason == "length"
        del stream


def test_async_failures_and_refusals(engine: Engine) -> None:
    async def main() -> None:
        with pytest.raises(GenerationError, match="prompt is empty"):
            engine.stream_async([])
        engine._core._runner.fail_next = OSError("gone")  # type: ignore[attr-defined]
        with pytest.raises(EngineFailure, match="OSError"):
            async for _ in engine.stream_async("abc"):
                pass
        assert len([event async for event in engine.stream_async("abc", max_tokens=4)]) == 4

    asyncio.run(main())
