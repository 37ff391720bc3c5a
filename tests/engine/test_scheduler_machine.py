"""Anything may happen to a scheduler, in any order, in tiny caches: every request still gets the text it gets alone."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from deepseek.engine.pace import Pace
from deepseek.engine.scheduler import Scheduler
from deepseek.engine.sequence import Request
from deepseek.engine.speculation import PromptLookup, Speculator
from fake_runner import FakeRunner
from scheduler_world import Oracle, Params, World

PREFIXES = [[], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8, 1, 1], [1, 2, 1, 2, 1, 2, 1, 2, 1]]
DRAFTERS: dict[str, Any] = {"right": Oracle(), "half": Oracle(2), "wrong": Oracle(1), "lookup": PromptLookup(2)}


class Arrivals(RuleBasedStateMachine):
    requests = Bundle("requests")

    @initialize(
        n_blocks=st.integers(9, 24), max_sequences=st.integers(1, 5), spare=st.integers(1, 20), caching=st.booleans(),
        drafter=st.sampled_from([None, *DRAFTERS, 1, 3]), max_decode_steps=st.sampled_from([1, 4, 8]),
    )  # fmt: skip
    def start(
        self,
        n_blocks: int,
        max_sequences: int,
        spare: int,
        caching: bool,
        drafter: str | int | None,
        max_decode_steps: int,
    ) -> None:
        pace = Pace()
        for rows in range(1, 6):
            pace.observe(rows, 0, 0.001)
        layers = drafter if isinstance(drafter, int) else 0
        runner = FakeRunner(n_blocks=n_blocks, max_sequences=max_sequences, max_tokens=max_sequences + spare,
                            prediction_layers=layers)  # fmt: skip
        speculator = isinstance(drafter, str) and Speculator(DRAFTERS[drafter], pace, max_drafts=4, always=True)
        self.world = World(runner, max_sequences=max_sequences, caching=caching, pace=pace,
                           speculator=speculator or None, max_decode_steps=max_decode_steps)  # fmt: skip
        self.alive: list[Request] = []

    @rule(
        target=requests, prefix=st.sampled_from(PREFIXES), rest=st.lists(st.integers(0, 3), min_size=1, max_size=9),
        max_tokens=st.integers(1, 14), n=st.sampled_from([1, 1, 1, 2, 3]), priority=st.integers(0, 1),
        seed=st.none() | st.integers(0, 2), salt=st.sampled_from([b"", b"x"]), simple=st.booleans(),
        prompt_logprobs=st.sampled_from([None, None, None, 1]),
        ends=st.sampled_from([frozenset[int](), frozenset({0, 1})]),
    )  # fmt: skip
    def arrive(
        self, prefix: list[int], rest: list[int], max_tokens: int, n: int, priority: int, seed: int | None,
        salt: bytes, simple: bool, prompt_logprobs: int | None, ends: frozenset[int],
    ) -> Request:  # fmt: skip
        params = Params(
            max_tokens=max_tokens, n=n, seed=seed, min_p=0.0 if simple else 0.1, prompt_logprobs=prompt_logprobs
        )
        request = self.world.add(prefix + rest, params, priority=priority, salt=salt, ends=ends)
        self.alive.append(request)
        return request

    @rule(request=consumes(requests))
    def abort(self, request: Request) -> None:
        self.end(request)

    @precondition(lambda self: self.world.scheduler.has_work)
    @rule(count=st.integers(1, 6))
    def step(self, count: int) -> None:
        for _ in range(count):
            if self.world.scheduler.has_work:
                self.world.step()

    @precondition(lambda self: self.world.scheduler.has_work)
    @rule()
    def cancelled_step(self) -> None:
        self.world.scheduler.roll_back(self.world.scheduler.schedule())

    @precondition(lambda self: self.world.scheduler.has_work)
    @rule()
    def failed_step(self) -> None:
        """As the core does: the requests of the batch end, the others go on."""
        scheduler, runner = self.world.scheduler, self.world.runner
        runner.fail_next = MemoryError()
        batch = scheduler.schedule()
        with pytest.raises(MemoryError):
            runner.run(batch)
        scheduler.roll_back(batch)
        for request in {chunk.sequence.request for chunk in batch.chunks}:
            self.end(request)

    def end(self, request: Request) -> None:
        self.world.scheduler.remove_request(request)
        if request in self.alive:
            self.alive.remove(request)

    @invariant()
    def every_block_is_accounted_for(self) -> None:
        if not hasattr(self, "world"):
            return
        scheduler, pool = self.world.scheduler, self.world.blocks.pool
        assert len(scheduler.running) <= scheduler._max_sequences
        assert not any(sequence.block_table or sequence.n_computed for sequence in scheduler.waiting)
        holders = [0] * pool.n_blocks
        for sequence in scheduler.running:
            assert not sequence.n_drafts
            assert sequence.n_computed < len(sequence.token_ids) <= sequence.request.limit
            for block in sequence.block_table:
                holders[block] += 1
        assert holders == pool._references
        assert pool.n_free == holders.count(0)

    @invariant()
    def queues_are_in_order(self) -> None:
        if hasattr(self, "world"):
            scheduler: Scheduler = self.world.scheduler
            for queue in (scheduler.running, scheduler.waiting):
                assert queue == sorted(queue, key=lambda sequence: sequence.key)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.run()
            for request in self.alive:
                self.world.check(request)
                assert request.params.prompt_logprobs is None or (
                    len(request.prompt_logprobs) == len(request.prompt_ids) - 1
                )
            self.world.check_all_returned()


TestArrivals = Arrivals.TestCase
TestArrivals.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
