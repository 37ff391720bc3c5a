"""The engine as callers see it, over the fake runner: texts, ends, refusals, what comes beside the text."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from deepseek.engine.engine import Engine
from deepseek.engine.engine_config import EngineConfig
from deepseek.engine.pooling import Pooling
from deepseek.engine.routing_record import RoutingRecord
from deepseek.errors import ConfigError, GenerationError
from deepseek.sampling import SamplingParams
from engine_world import LETTERS, make_engine, one
from fake_runner import FakeRunner, expected


@pytest.fixture
def engine() -> Iterator[Engine]:
    with make_engine() as engine:
        yield engine


def test_one_prompt_or_many_as_text_or_ids(engine: Engine) -> None:
    params = SamplingParams(max_tokens=12, seed=4)
    answer = expected([0, 1, 2], params, 15)
    single = one(engine.generate("abc", params))
    assert single.token_ids == answer
    assert single.text == "".join(LETTERS[token] for token in answer)
    assert single.finish_reason == "length"
    assert single.prompt_tokens == 3
    assert one(engine.generate([0, 1, 2], max_tokens=12, seed=4)).token_ids == answer
    many = engine.generate(["abc", "d"], params)
    assert isinstance(many, list)
    assert [result.token_ids for result in many] == [answer, expected([3], params, 13)]
    assert [len(engine.generate(prompts, params)) for prompts in ([[0, 1, 2]], ["abc"])] == [1, 1]  # type: ignore[arg-type]


def test_no_prompts_give_no_answers(engine: Engine) -> None:
    assert engine.generate([]) == []


def test_prompts_in_vllms_dicts(engine: Engine) -> None:
    def ids(prompt: Any) -> tuple[int, ...]:
        (answer,) = engine.generate([prompt], max_tokens=3, temperature=0)
        return answer.prompt_tokens, *answer.token_ids

    assert ids({"prompt": "abc"}) == ids("abc")
    assert ids({"prompt_token_ids": [0, 1]}) == ids([0, 1])
    assert ids({"prompt": None, "prompt_token_ids": [0]}) == ids([0])
    assert len(one(engine.generate({"prompt": "abc"}, max_tokens=1)).token_ids) == 1


def test_each_prompt_may_have_params_of_its_own(engine: Engine) -> None:
    each = [SamplingParams(max_tokens=count, temperature=0) for count in (2, 5)]
    assert [len(answer.token_ids) for answer in engine.generate([[0], [1]], each)] == [2, 5]


def test_other_names_of_settings(engine: Engine) -> None:
    assert len(engine.generate([0], max_new_tokens=3).token_ids) == 3
    assert len(engine.generate([0], n_predict=4, num_return_sequences=2).samples) == 2
    assert len(engine.generate([0], sampling_params=SamplingParams(max_tokens=3)).token_ids) == 3
    greedy = engine.generate([0], max_tokens=5, temperature=0).token_ids
    assert engine.generate([0], max_tokens=5, do_sample=False).token_ids == greedy
    assert len(engine.generate([0], max_tokens=2, do_sample=True).token_ids) == 2


def test_a_prompt_may_fill_the_context_where_one_token_is_asked_for() -> None:
    with make_engine(max_model_len=32) as engine:
        answer = engine.generate([1] * 32, max_tokens=1, temperature=0, prompt_logprobs=0)
        assert len(answer.token_ids) == 1
        assert answer.prompt_logprobs is not None
        assert len(answer.prompt_logprobs) == 31
        with pytest.raises(GenerationError, match="one of them generated: shorten the prompt, or raise max_model_len"):
            engine.generate([1] * 32, max_tokens=2)


def test_a_name_in_place_of_a_runner_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"write Engine\.from_pretrained\('smollm2'\)"):
        Engine("smollm2")  # type: ignore[arg-type]


def test_a_character_held_at_the_end_comes_out(engine: Engine) -> None:
    answer = expected([3], SamplingParams(), 40)
    count = answer.index(10) + 1
    assert one(engine.generate("d", max_tokens=count, temperature=0)).text == "".join(
        map(LETTERS.__getitem__, answer[:count])
    )


def test_samples(engine: Engine) -> None:
    params = SamplingParams(max_tokens=7, seed=1, n=3)
    result = one(engine.generate("abcd", params))
    assert [sample.token_ids for sample in result.samples] == [
        expected([0, 1, 2, 3], params, 11, index) for index in range(3)
    ]
    assert result.metrics.generated_tokens == 21


def test_more_prompts_than_the_queue_takes() -> None:
    with make_engine(max_queue=2, max_num_seqs=2) as engine:
        results = engine.generate([[i] for i in range(10)], max_tokens=3, temperature=0)
    assert isinstance(results, list)
    assert [result.token_ids for result in results] == [expected([i], SamplingParams(), 4) for i in range(10)]


def test_a_stream_folds_to_the_result(engine: Engine) -> None:
    params = SamplingParams(max_tokens=9, seed=3)
    events = list(engine.stream("abc", params))
    result = one(engine.generate("abc", params))
    assert [event.token_id for event in events] == result.token_ids
    assert "".join(event.text for event in events) == result.text
    assert [event.finish_reason for event in events] == [None] * 8 + ["length"]


def test_end_tokens_end_unless_ignored() -> None:
    free = expected([0], SamplingParams(), 30)
    runner = FakeRunner(eos_token_ids=(free[3],))
    with make_engine(runner) as engine:
        ended = one(engine.generate("a", max_tokens=20, temperature=0))
        ignored = one(engine.generate("a", max_tokens=20, temperature=0, ignore_eos=True))
        stopped = one(engine.generate("a", max_tokens=20, temperature=0, ignore_eos=True, stop_token_ids=[free[1]]))
    assert ended.token_ids == free[: free.index(free[3]) + 1]
    assert ended.finish_reason == "stop"
    assert len(ended.text or "") == len(ended.token_ids) - 1
    assert ignored.token_ids == free[:20]
    assert stopped.token_ids == free[: free.index(free[1]) + 1]


def test_stop_strings_span_tokens_and_steps(engine: Engine) -> None:
    free = one(engine.generate("ab", max_tokens=30, temperature=0))
    assert free.text is not None
    for _ in range(3):  # later rounds take several tokens a step
        stopped = one(engine.generate("ab", max_tokens=30, temperature=0, stop=free.text[10:14]))
        assert stopped.text == free.text[: free.text.index(free.text[10:14])]
        assert stopped.finish_reason == "stop"
        events = list(engine.stream("ab", max_tokens=30, temperature=0, stop=[free.text[10:14], "zzz"]))
        assert "".join(event.text for event in events) == stopped.text
        assert [event.stopped_by for event in events if event.finish_reason] == [free.text[10:14]]
    held = one(engine.generate("ab", max_tokens=30, temperature=0, stop=free.text[-2:] + "~"))
    assert held.text == free.text


def test_stop_strings_may_be_kept_and_may_come_late(engine: Engine) -> None:
    free = one(engine.generate("ab", max_tokens=30, temperature=0))
    assert free.text is not None
    stop = free.text[4:6]
    kept = one(engine.generate("ab", max_tokens=30, temperature=0, stop=stop, include_stop_str_in_output=True))
    assert kept.text == free.text[: free.text.index(stop) + 2]
    least = free.text.index(stop) + 4
    late = one(engine.generate("ab", max_tokens=30, temperature=0, stop=stop, min_tokens=least))
    again = free.text.find(stop, least)
    assert late.text == (free.text if again < 0 else free.text[:again])


def test_the_context_is_a_limit() -> None:
    with make_engine(FakeRunner(context=20)) as engine:
        result = one(engine.generate([1] * 17, max_tokens=10, temperature=0))
        assert len(result.token_ids) == 3
        assert result.finish_reason == "length"
        assert engine.max_model_len == 20


@pytest.mark.parametrize(
    ("prompt", "settings", "message"),
    [
        ([[]], {}, "prompt is empty"),
        ("", {}, "prompt is empty"),
        ([1] * 96, {}, "too long: 96 tokens > 95 maximum. The maximum context length is 96 tokens"),
        ([1, 11], {}, "token id 11 is outside the vocabulary of 11"),
        ([-1], {}, "token id -1"),
        ([1], {"max_token": 4}, r"unknown setting 'max_token'; did you mean max_tokens\?"),
        ([1], {"xyzzy": 4}, r"unknown setting 'xyzzy'; known are max_tokens, .*priority"),
        ([1], {"max_new_tokens": 4, "max_tokens": 5}, "two names of one setting: give one of them"),
        ([1], {"params": 5}, "params must be SamplingParams, or its fields by name"),
        ([[1], [2]], {"params": [SamplingParams()]}, "there are 2 prompts and 1 params"),
        ([1] * 97, {"max_tokens": 1}, r"97 tokens > 96 maximum.* is 96 tokens \(max_model_len\): shorten"),
        ([1], {"params": SamplingParams(), "seed": 4}, "not both: seed"),
        ([[1.5]], {}, "a string or a list of token ids, not list"),
        (b"ab", {}, "a string or a list of token ids, not bytes"),
        ([{"role": "user", "content": "hi"}], {}, "not a message: use chat for messages"),
        ({"prompt": "a", "multi_modal_data": {"image": 1}}, {}, "prompt or prompt_token_ids, not multi_modal_data"),
        ({}, {}, r"must have prompt \(a string\) or prompt_token_ids"),
        ([1], {"do_sample": False, "temperature": 1}, "two names of one setting"),
        ([1], {"priority": "high"}, "priority must be a whole number, not 'high'"),
        ([1], {"record_routing": 1}, "record_routing must be True or False"),
    ],
)
def test_refusals_come_at_once(prompt: Any, settings: dict[str, Any], message: str) -> None:
    with make_engine(max_model_len=96) as engine, pytest.raises(GenerationError, match=message):
        engine.generate(prompt, **settings)


def test_without_a_tokenizer_there_is_no_text() -> None:
    with make_engine(tokenizer=None) as engine:
        assert one(engine.generate([1], max_tokens=3)).text is None
        with pytest.raises(GenerationError, match="needs an engine with a tokenizer"):
            engine.generate("abc")
        with pytest.raises(GenerationError, match="stop strings need an engine with a tokenizer"):
            engine.generate([1], stop="x")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_num_seqs": 0}, "max_num_seqs must be a whole number above 0, not 0"),
        ({"threads": 1.5}, "threads must be a whole number"),
        ({"speculation": "maybe"}, "speculation must be one of auto, always, off, not 'maybe'"),
        ({"step_milliseconds": 0}, "step_milliseconds must be above 0"),
        ({"enable_prefix_caching": None}, "enable_prefix_caching must be true or false"),
        ({"max_model_len": 100_000}, r"takes 10000 \(max_position_embeddings\)"),
        ({"max_model_len": 9_000}, "holds 800 tokens: lower it or raise kv_cache_bytes"),
        ({"max_num_batched_tokens": 8}, r"max_num_batched_tokens \(8\) must be above max_num_seqs \(8\)"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_engine(**settings)


def test_unknown_settings_are_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'gpu'; known are .*quantize, threads"):
        EngineConfig.of({"gpu": 1})


@pytest.mark.parametrize("fields", [{"temperature": 0.9, "top_p": 0.8}, {"frequency_penalty": 1.0}, {"logprobs": 2}])
def test_the_real_sampler_gives_the_same_text_however_it_is_run(fields: dict[str, Any]) -> None:
    """Alone; together in a cache so small that sequences lose their blocks; with guesses, right and wrong."""
    params = SamplingParams(max_tokens=24, seed=5, **fields)
    prompts = [[i, 2, 3, i, 2, 3] for i in range(5)]
    alone = EngineConfig(max_decode_steps=1, max_num_seqs=1, enable_prefix_caching=False, speculation="off")
    with Engine(FakeRunner(), None, alone) as engine:
        expected_results = engine.generate(prompts, params)
    together = EngineConfig(max_decode_steps=1, speculation="always")
    with Engine(FakeRunner(n_blocks=16), None, together) as engine:
        results = engine.generate(prompts, params)
    assert isinstance(results, list)
    assert isinstance(expected_results, list)
    assert [result.samples for result in results] == [result.samples for result in expected_results]
    assert any(result.metrics.preemptions for result in results)
    assert any(result.metrics.drafted_tokens for result in results)


@pytest.mark.parametrize("settings", [{}, {"max_decode_steps": 1, "speculation": "always"}])
def test_which_experts_each_token_used(settings: dict[str, Any]) -> None:
    runner = FakeRunner(n_blocks=16)
    runner.routing = RoutingRecord(
        (1, 4), ids=np.zeros((2, 32, 2), np.int32), weights=np.zeros((2, 32, 2), np.float32),
        totals=np.zeros((2, 64), np.int64), at=np.array([-1]),
    )  # fmt: skip
    with make_engine(runner, **settings) as engine:
        engine.generate([1, 2, 3, 1, 2, 3], max_tokens=3)
        assert not runner.routing.is_on
        assert not engine.routing_totals()[4].any()
        prompts = [[1, 2, 3, 1, 2, 3], [3, 4], [5, 6, 7]]
        results = engine.generate(prompts, max_tokens=20, n=2, seed=1, record_routing=True)
        assert isinstance(results, list)
        for prompt, result in zip(prompts, results, strict=True):
            assert result.metrics.cached_tokens == 0
            for sample in result.samples:
                assert sample.routing is not None
                positions = np.arange(len(prompt) + 19)
                assert sample.routing.layers == (1, 4)
                assert sample.routing.experts[:, 0].tolist() == [[1, position] for position in positions]
                assert sample.routing.experts[:, 1, 0].tolist() == [4] * len(positions)
                assert sample.routing.weights[:, 1, 1].tolist() == (positions / 64).tolist()
        stream = engine.stream([1, 2], max_tokens=2, record_routing=True)
        list(stream)
        routing = stream.routing()
        assert routing is not None
        assert routing.experts.shape == (3, 2, 2)
        assert one(engine.generate([1], max_tokens=1)).samples[0].routing is None
        assert set(engine.routing_totals()) == {1, 4}
        assert engine.routing_totals()[1].all()


def test_routing_is_recorded_for_everybody_where_the_engine_is_told_to(engine: Engine) -> None:
    with pytest.raises(GenerationError, match="no experts: record_routing must be False"):
        engine.generate("a", record_routing=True)
    assert engine.routing_totals() == {}
    runner = FakeRunner()
    runner.routing = RoutingRecord(
        (1,), ids=np.zeros((1, 32, 2), np.int32), weights=np.zeros((1, 32, 2), np.float32),
        totals=np.zeros((1, 4), np.int64), at=np.array([-1]),
    )  # fmt: skip
    with make_engine(runner, record_routing=True) as recording:
        recording.generate("abc", max_tokens=3)
        assert recording.routing_totals()[1].tolist() == [5] * 4


def test_embeddings() -> None:
    prompts = [[i % 11 for i in range(count)] for count in (50, 3, 9, 50)]
    runner = FakeRunner(n_blocks=16, max_tokens=20)
    with make_engine(runner) as engine:
        stream = engine.stream("abc", max_tokens=30, temperature=0)
        means = engine.embed(prompts, normalize=False)
        tokens = [np.mean(prompt) for prompt in prompts]
        positions = [(len(prompt) - 1) / 2 for prompt in prompts]
        np.testing.assert_allclose(means, np.array([tokens, positions, [1] * 4], np.float32).T, rtol=1e-6)
        assert engine.embed("abc", pooling="last", normalize=False).tolist() == [2, 2, 1]
        np.testing.assert_allclose(engine.embed("abc", pooling="last"), [2 / 3, 2 / 3, 1 / 3], rtol=1e-6)
        assert [event.token_id for event in stream] == expected([0, 1, 2], SamplingParams(), 33)
        assert engine._core._scheduler.blocks.pool.n_free == 16
        with pytest.raises(GenerationError, match="pooling must be mean or last, not 'cls'"):
            engine.embed("abc", pooling="cls")  # type: ignore[arg-type]
        with pytest.raises(GenerationError, match="prompt is empty"):
            engine.embed(["abc", ""])


def test_a_pooled_vector_does_not_depend_on_chunks() -> None:
    hidden = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    whole, pieces = Pooling("mean"), Pooling("mean")
    whole.add(0, hidden)
    pieces.add(0, hidden[:7] + 1)  # a part that was computed and lost
    for start, end in ((0, 1), (1, 30), (30, 40)):
        pieces.add(start, hidden[start:end])
    assert (whole.vector(normalize=True) == pieces.vector(normalize=True)).all()
    assert np.linalg.norm(whole.vector(normalize=True)) == pytest.approx(1)


def test_metrics_and_logprobs(engine: Engine) -> None:
    prompt = list(range(9))
    one(engine.generate(prompt, max_tokens=5))
    result = one(engine.generate(prompt, max_tokens=5, logprobs=0, temperature=0))
    metrics = result.metrics
    assert (metrics.prompt_tokens, metrics.cached_tokens, metrics.generated_tokens) == (9, 8, 5)
    times = [metrics.arrival_time, metrics.first_scheduled_time, metrics.first_token_time, metrics.finished_time]
    assert times == sorted(times)
    assert times[0] > 0
    assert result.logprobs is not None
    assert len(result.logprobs) == 5
    scored = one(engine.generate(prompt, max_tokens=1, prompt_logprobs=1))
    assert scored.prompt_logprobs is not None
    assert len(scored.prompt_logprobs) == 8
    stream = engine.stream(prompt, max_tokens=1, prompt_logprobs=0)
    next(stream)
    assert [logprob for logprob, _ in stream.prompt_logprobs or []] == [
        logprob for logprob, _ in scored.prompt_logprobs
    ]
