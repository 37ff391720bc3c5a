"""The scheduler's decisions, one at a time; `test_scheduler_machine` then throws everything at it."""

from dataclasses import replace
from typing import Any

import pytest

from deepseek.engine.advance import advance
from deepseek.engine.pace import Pace
from deepseek.engine.speculation import Speculator
from fake_runner import FakeRunner, HashSampler, expected
from scheduler_world import Oracle, Params, World


def test_a_request_alone() -> None:
    world = World(FakeRunner())
    request = world.add([1, 2, 3, 4, 5], Params(max_tokens=20, seed=3))
    world.run()
    world.check(request)
    world.check_all_returned()
    assert world.runner.batches[0] == (5,)
    assert set(world.runner.batches[1:]) == {(1,)}


def test_requests_run_together_and_change_nothing() -> None:
    world = World(FakeRunner())
    requests = [world.add([i, i + 1, 7], Params(max_tokens=5 + i, seed=i)) for i in range(4)]
    world.run()
    for request in requests:
        world.check(request)
    assert (1, 1, 1, 1) in world.runner.batches


def test_long_prompts_go_in_pieces_beside_decoding() -> None:
    pace = Pace()
    world = World(FakeRunner(max_tokens=16, block_size=4, n_blocks=100), pace=pace, step_seconds=0.1)
    first = world.add([1, 2, 3], Params(max_tokens=30))
    world.step()
    for _ in range(40):
        pace.observe(1, 0, 0.01)
        pace.observe(1, 100, 1.0)  # 100 tokens take 0.99 s: about 9 fit beside a decode step
    second = world.add(list(range(10)) * 5, Params(max_tokens=5))
    world.step()
    assert world.runner.batches[-1] == (1, 8)  # whole blocks
    world.run()
    world.check(first)
    world.check(second)


def test_a_prefix_is_computed_once() -> None:
    world = World(FakeRunner())
    prefix = [3, 1, 4, 1, 5, 9, 2, 6]
    first = world.add([*prefix, 5, 3], Params())
    world.run()
    second = world.add([*prefix, 7], Params())
    world.run()
    world.check(first)
    world.check(second)
    assert second.metrics.cached_tokens == 8
    assert world.runner.batches[-8] == (1,)  # its only prompt token


def test_the_last_prompt_token_is_always_computed() -> None:
    world = World(FakeRunner())
    requests = []
    for _ in range(2):
        requests.append(world.add([1, 2, 3, 4, 5, 6, 7, 8], Params()))
        world.run()
    world.check(requests[1])
    assert requests[1].metrics.cached_tokens == 4


def test_generated_blocks_are_found_by_their_own_kind_only() -> None:
    """What was generated has other KV than the same tokens in a prompt, so a prompt may not take it over."""
    world = World(FakeRunner())
    first = world.add([1, 2, 3, 4], Params(max_tokens=13))
    world.run()
    answer = world.tokens[first.id, 0]
    second = world.add([1, 2, 3, 4, *answer, 5], Params())
    world.run()
    world.check(second)
    assert second.metrics.cached_tokens == 4


def test_a_block_is_found_after_its_own_prefix_only() -> None:
    world = World(FakeRunner())
    world.add([1, 2, 3, 4, 5, 6, 7, 8, 9], Params())
    world.run()
    request = world.add([5, 6, 7, 8, 9], Params())
    world.run()
    world.check(request)
    assert request.metrics.cached_tokens == 0


def test_tenants_share_nothing() -> None:
    world = World(FakeRunner())
    for salt in (b"a", b"b"):
        request = world.add(list(range(10)), Params(), salt=salt)
        world.run()
        assert request.metrics.cached_tokens == 0


def test_equal_prompts_that_arrive_together_are_computed_once() -> None:
    world = World(FakeRunner(max_tokens=32))
    requests = [world.add([*range(10), last], Params()) for last in range(3)]
    world.run()
    for request in requests:
        world.check(request)
    assert sorted(request.metrics.cached_tokens for request in requests) == [0, 8, 8]


def test_samples_share_the_prompt_and_copy_what_they_write() -> None:
    world = World(FakeRunner())
    request = world.add([1, 2, 3, 4, 5, 6], Params(n=3, seed=5, max_tokens=9))
    world.step()
    assert [len(sequence.block_table) for sequence in request.sequences] == [2, 2, 2]
    assert world.runner.n_blocks - world.blocks.pool.n_free == 2
    world.run()
    world.check(request)
    assert world.runner.copies == 2
    world.check_all_returned()
    assert len({tuple(world.tokens[request.id, index]) for index in range(3)}) == 3


def test_more_samples_than_seats() -> None:
    world = World(FakeRunner(), max_sequences=2)
    request = world.add([1, 2, 3, 4, 5, 6], Params(n=5, seed=5, max_tokens=9))
    world.run()
    world.check(request)
    world.check_all_returned()


def test_preempted_requests_lose_nothing() -> None:
    world = World(FakeRunner(n_blocks=8, block_size=4), caching=False)
    requests = [world.add([i, 2, 3, 4, 5], Params(max_tokens=20, seed=i)) for i in range(3)]
    world.run()
    for request in requests:
        world.check(request)
    assert sum(request.metrics.preemptions for request in requests) > 0
    assert requests[0].metrics.preemptions == 0
    world.check_all_returned()


def test_a_prompt_waits_until_all_of_it_fits() -> None:
    world = World(FakeRunner(n_blocks=8, block_size=4))
    requests = [world.add([i] * 18, Params(max_tokens=9)) for i in range(2)]
    world.step()
    world.step()
    assert world.scheduler.waiting == requests[1].sequences
    world.run()
    for request in requests:
        world.check(request)
        assert request.metrics.preemptions == 0


def test_better_priority_takes_the_seat() -> None:
    world = World(FakeRunner(), max_sequences=1)
    low = world.add([1, 2], Params(max_tokens=20), priority=1)
    for _ in range(3):
        world.step()
    high = world.add([3, 4], Params(max_tokens=5), priority=0)
    for _ in range(5):
        world.step()
    assert len(world.tokens[high.id, 0]) == 5
    world.run()
    world.check(low)
    world.check(high)
    assert low.metrics.preemptions == 1


def test_several_steps_in_one_batch() -> None:
    pace = Pace()
    pace.observe(1, 0, 0.001)
    pace.observe(2, 0, 0.001)
    world = World(FakeRunner(), pace=pace, max_decode_steps=8)
    requests = [world.add([1, 2, 3], Params(max_tokens=25, seed=1)), world.add([4, 5], Params(max_tokens=12))]
    world.run()
    for request in requests:
        world.check(request)
    assert world.runner.steps == [1, 8, 2, 1, 8, 4, 1]
    world.check_all_returned()


@pytest.mark.parametrize("hindrance", ["sampler", "slow"])
def test_one_step_at_a_time_where_several_would_be_wrong(hindrance: str) -> None:
    pace = Pace()
    pace.observe(1, 0, 0.001 if hindrance == "sampler" else 0.09)
    world = World(FakeRunner(), pace=pace, max_decode_steps=8)
    request = world.add([1, 2, 3], Params(max_tokens=9, min_p=0.1 if hindrance == "sampler" else 0.0))
    world.run()
    world.check(request)
    assert set(world.runner.steps) == {1}


@pytest.mark.parametrize("wrong", [0, 1, 3])
def test_drafts_change_the_number_of_steps_only(wrong: int) -> None:
    speculator = Speculator(Oracle(wrong), Pace(), max_drafts=4, always=True)
    world = World(FakeRunner(), speculator=speculator)
    request = world.add([1, 2, 3], Params(max_tokens=31, seed=2))
    world.run()
    world.check(request)
    assert len(world.runner.batches) == {0: 1 + 6, 1: 31, 3: 1 + 10}[wrong]
    again = world.add([1, 2, 3], Params(max_tokens=31, seed=2))  # and nothing rejected was left in the prefix cache
    other = world.add([1, 2, 3], Params(max_tokens=31, seed=4))
    world.run()
    world.check(again)
    world.check(other)


def test_drafts_leave_room_for_prompts() -> None:
    world = World(FakeRunner(max_tokens=6), speculator=Speculator(Oracle(), Pace(), max_drafts=8, always=True))
    requests = [world.add([1, 2, 3], Params(max_tokens=40))]
    world.step()
    requests.append(world.add([4] * 8, Params()))
    world.step()
    assert world.runner.batches[-1] == (3, 3)
    world.run()
    for request in requests:
        world.check(request)


def test_an_end_among_right_drafts_ends() -> None:
    answer = expected([1, 2, 3], Params(seed=2), 40)
    world = World(FakeRunner(), speculator=Speculator(Oracle(), Pace(), max_drafts=8, always=True))
    request = world.add([1, 2, 3], Params(max_tokens=31, seed=2), ends=frozenset({answer[4]}))
    world.run()
    world.check(request)
    world.check_all_returned()


def test_a_sampler_that_fails_ends_all_samples_of_its_request_once() -> None:
    class Touchy(HashSampler):
        def choose(self, logits: Any) -> Any:
            if self._key == (5, 1) and self._drawn == 2:
                raise ZeroDivisionError
            return super().choose(logits)

    world = World(FakeRunner())
    bad = world.add([1, 2], Params(n=3, seed=5), sampler=Touchy)
    good = world.add([1, 2], Params(seed=1))
    world.step()
    world.step()
    batch = world.scheduler.schedule()
    messages = advance(world.scheduler, batch, world.runner.run(batch))
    assert [event for request, event in messages if request is bad and isinstance(event, Exception)] == [messages[1][1]]
    assert [request for request, _ in messages] == [bad, bad, good]
    assert world.scheduler.running == good.sequences
    assert len(good.sequences[0].token_ids) == 5


def test_prompt_logprobs_come_for_every_token_but_the_first() -> None:
    world = World(FakeRunner(max_tokens=7))
    prompt = list(range(10))
    world.add(prompt, Params())
    world.run()
    request = world.add(prompt, replace(Params(), prompt_logprobs=2))
    world.run()
    world.check(request)
    assert len(request.prompt_logprobs) == 9
    assert request.metrics.cached_tokens == 0
    assert all(logprob <= top[0][1] and len(top) == 2 for logprob, top in request.prompt_logprobs)


def test_a_cancelled_step_did_not_happen() -> None:
    world = World(FakeRunner(), speculator=Speculator(Oracle(3), Pace(), always=True))
    request = world.add([1, 2, 3, 4, 5], Params(max_tokens=20, n=2, seed=1))
    while world.scheduler.has_work:
        world.scheduler.roll_back(world.scheduler.schedule())
        world.step()
    world.check(request)
    world.check_all_returned()


@pytest.mark.parametrize("layers", [1, 2])
def test_prediction_layers_make_up_for_what_preemption_took(layers: int) -> None:
    """The fake runner checks that entries before those computed are there, and of the right text."""
    world = World(FakeRunner(n_blocks=9, prediction_layers=layers), caching=False)
    requests = [world.add([place] * 6, Params(max_tokens=20, seed=1)) for place in range(3)]
    world.run()
    for request in requests:
        world.check(request)
    assert sum(request.metrics.preemptions for request in requests)
    assert all(request.metrics.accepted_tokens for request in requests)
    world.check_all_returned()


def test_a_prefix_that_others_have_predicted_is_not_predicted_again() -> None:
    world = World(FakeRunner(prediction_layers=1))
    prompt = [number % 5 for number in range(33)]
    world.add(prompt, Params(max_tokens=6))
    world.run()
    before = world.runner.predicted
    assert before >= 33
    world.add([*prompt, 7, 8], Params(max_tokens=3))
    world.run()
    assert world.runner.predicted - before < 10
