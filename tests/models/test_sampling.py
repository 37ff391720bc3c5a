"""Sampling against its definition written out, seeds, and stop strings across the borders of pieces."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepseek.errors import GenerationError
from deepseek.models.sampler import CARRIED_OUT, Sampler, filtered_probabilities
from deepseek.sampling import SamplingParams, StopScanner, StructuredOutput


def slow_probabilities(logits: list[float], params: SamplingParams) -> list[float]:
    """The definition: temperature, then min_p, top_k, top_p, each on what is left and normalised again."""
    top = max(logits)
    weights = {token: math.exp((logit - top) / params.temperature) for token, logit in enumerate(logits)}

    def normalised(kept: dict[int, float]) -> dict[int, float]:
        total = sum(kept.values())
        return {token: weight / total for token, weight in kept.items()}

    probabilities = normalised(weights)
    limit = params.min_p * max(probabilities.values())
    probabilities = normalised({token: p for token, p in probabilities.items() if p >= limit})
    ranked = sorted(probabilities.items(), key=lambda item: (-item[1], item[0]))
    probabilities = normalised(dict(ranked[: params.top_k] if params.top_k else ranked))
    nucleus, reached = {}, 0.0
    for token, p in probabilities.items():
        if reached >= params.top_p:
            break
        nucleus[token] = p
        reached += p
    probabilities = normalised(nucleus)
    return [probabilities.get(token, 0.0) for token in range(len(logits))]


@settings(max_examples=200, deadline=None)
@given(
    logits=st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=1, max_size=12),
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    top_k=st.integers(0, 14),
    top_p=st.sampled_from([0.017, 0.313, 0.771, 0.9317, 1.0]),
    min_p=st.sampled_from([0.0, 0.0513, 0.517, 1.0]),
)
def test_filters_follow_their_definition(
    logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    got = filtered_probabilities(torch.tensor(logits), params)
    assert got.tolist() == pytest.approx(slow_probabilities(logits, params), abs=1e-9)


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([0.0, 1.0, -30.0, 2.0, 0.5])
    params = SamplingParams(temperature=0.8, top_k=3, seed=11)
    expected = filtered_probabilities(logits, params)
    sampler = Sampler(params)
    counts = torch.bincount(torch.tensor([sampler.choose(logits) for _ in range(20_000)]), minlength=5)
    assert counts[2] == counts[0] == 0
    torch.testing.assert_close(counts / 20_000, expected.float(), rtol=0, atol=0.012)


def test_seeds() -> None:
    logits = torch.zeros(1000)

    def draws(seed: int | None) -> list[int]:
        sampler = Sampler(SamplingParams(seed=seed))
        return [sampler.choose(logits) for _ in range(10)]

    assert draws(4) == draws(4) != draws(5)
    assert draws(None) != draws(None)


def test_greedy_takes_the_likeliest() -> None:
    assert Sampler(SamplingParams(temperature=0)).choose(torch.tensor([0.1, 0.3, 0.2]).bfloat16()) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("max_tokens", value) for value in (0, -1, 1.5, True)],
        *[("temperature", value) for value in (-0.1, math.nan, math.inf, "1")],
        *[("top_k", value) for value in (-2, 2.0)],
        *[("top_p", value) for value in (0, 1.1, math.nan)],
        *[("min_p", value) for value in (-0.1, 1.5)],
        *[("seed", value) for value in (-2, 2**63, 1.0)],
        *[("stop", value) for value in ([3], ["a", 3])],
        *[("stop_token_ids", value) for value in ("5", [1.0])],
    ],
)
def test_a_bad_setting_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(GenerationError, match=f"^{field} must be"):
        SamplingParams(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", 2), ("min_tokens", 1), ("typical_p", 0.5), ("repetition_penalty", 1.1), ("frequency_penalty", 0.1),
     ("presence_penalty", 0.1), ("logit_bias", {1: 1}), ("allowed_token_ids", [1]), ("bad_words", "a"), ("logprobs", 0),
     ("logits_processors", print), ("structured", StructuredOutput(json_object=True)), ("prompt_logprobs", 0)],
)  # fmt: skip
def test_what_only_the_engine_does_is_refused_by_name(field: str, value: object) -> None:
    assert field not in CARRIED_OUT
    with pytest.raises(GenerationError, match=f"^{field} is not supported by the PyTorch reference: use the engine"):
        Sampler(SamplingParams(**{field: value}))


@settings(max_examples=300, deadline=None)
@given(
    text=st.text("ab", max_size=16),
    stop=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 16), max_size=6),
)
def test_stop_strings_are_found_wherever_pieces_break(text: str, stop: list[str], cuts: list[int]) -> None:
    """What comes out is the text before the stop string that is completed first, however the text is cut."""
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    whole = StopScanner(tuple(stop))
    expected_last = whole.push(text) + whole.flush()
    scanner, shown = StopScanner(tuple(stop)), ""
    borders = sorted({0, *(cut for cut in cuts if cut < len(text)), len(text)})
    for start, end in pairwise(borders):
        shown += scanner.push(text[start:end])
        assert text.startswith(shown)
        assert not any(s in shown for s in stop)
    shown += scanner.flush()
    assert (scanner.found is not None) == bool(ends)
    if not ends:
        assert shown == expected_last == text
    else:
        assert text[len(shown) :].startswith(scanner.found)
        assert len(shown) in {start for _, start in ends}


def test_a_held_beginning_comes_out_when_it_fails() -> None:
    scanner = StopScanner(("END",))
    assert [scanner.push(piece) for piece in ("a", "E", "N", "x", "EN", "D!")] == ["a", "", "", "ENx", "", ""]
    assert scanner.found == "END"
