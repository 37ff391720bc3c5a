"""Sampling kernels against the PyTorch reference and plain NumPy: filters, draws, ties, extremes."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepseek.kernels import random_numbers, sampling, selection
from deepseek.models.sampler import filtered_probabilities
from deepseek.sampling import SamplingParams

Row = NDArray[np.float32]


def scratch_for(row: Row) -> NDArray[np.float64]:
    return np.full(selection.scratch_size(row.size), np.nan)


def compiled_probabilities(
    row: Row, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0, typical_p: float = 1.0
) -> NDArray[np.float64]:
    scratch = scratch_for(row)
    _, weights, ids, _, tops, *_ = selection.parts(scratch, row.size)
    top = selection.survey(row, tops)
    count = sampling.filter_row(row, top, 1 / temperature, top_k, top_p, min_p, typical_p, scratch)
    assert (np.diff(ids[:count]) > 0).all()
    result = np.zeros(row.size)
    result[ids[:count]] = weights[:count] / weights[:count].sum()
    return result


def sample(row: Row, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0,
           typical_p: float = 1.0, seed: int = 7, index: int = 0, draw: int = 0) -> int:  # fmt: skip
    return sampling.sample_row(
        row, float(temperature), top_k, float(top_p), float(min_p), float(typical_p), seed, index, draw,
        scratch_for(row),
    )  # fmt: skip


def row_of(kind: str, size: int, seed: int) -> Row:
    rng = np.random.default_rng(seed)
    row = {
        "normal": lambda: rng.standard_normal(size) * 4,
        "flat": lambda: rng.standard_normal(size) * 0.01,
        "tied": lambda: rng.integers(-6, 7, size) / 2,
        "equal": lambda: np.full(size, 1.5),
        "zipf": lambda: 12 - 1.5 * np.log(rng.permutation(size) + 1.0),
        "masked": lambda: np.where(rng.random(size) < 0.9, -np.inf, rng.integers(-6, 7, size) / 2),
        "spread": lambda: rng.standard_normal(size) * np.exp(rng.standard_normal(size) * 4),
    }[kind]().astype(np.float32)
    row[rng.integers(size)] = 2.0
    return row


KINDS = ("normal", "flat", "tied", "equal", "zipf", "masked", "spread")


@settings(max_examples=400, deadline=None)
@example("flat", 700, 0, 1.0, 100, 0.9, 0.0)
@given(
    kind=st.sampled_from(KINDS),
    size=st.one_of(st.integers(1, 70), st.sampled_from([63, 64, 65, 127, 128, 129, 1000, 4096, 5003])),
    seed=st.integers(0, 2**32),
    temperature=st.sampled_from([0.03, 0.3, 1.0, 2.5, 40.0]),
    top_k=st.sampled_from([0, 0, 1, 2, 5, 17, 64, 65, 200, 6000]),
    top_p=st.sampled_from([1e-9, 0.017, 0.313, 0.771, 0.9317, 0.99913, 1.0, 1.0]),
    min_p=st.sampled_from([0.0, 0.0, 0.000713, 0.0513, 0.517, 1.0]),
)
def test_filters_equal_the_reference(
    kind: str, size: int, seed: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    row = row_of(kind, size, seed)
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    expected = filtered_probabilities(torch.from_numpy(row), params).numpy()
    got = compiled_probabilities(row, temperature, top_k, top_p, min_p)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_filters_over_a_large_vocabulary(kind: str) -> None:
    row = row_of(kind, 256_000, 3)
    for top_k, top_p, min_p in ((0, 0.9317, 0.0), (50, 1.0, 0.0), (9000, 0.9317, 0.0), (0, 0.99913, 0.0137)):
        params = SamplingParams(temperature=0.9, top_k=top_k, top_p=top_p, min_p=min_p)
        expected = filtered_probabilities(torch.from_numpy(row), params).numpy()
        got = compiled_probabilities(row, 0.9, top_k, top_p, min_p)
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-14)


def typical_set(probabilities: NDArray[np.float64], mass: float) -> set[int]:
    """The definition: nearest to the expected surprise first, lower ids first among equals, until mass is reached."""
    possible = np.flatnonzero(probabilities)
    surprise = -np.log(probabilities[possible])
    distance = abs(surprise - (probabilities[possible] * surprise).sum())
    chosen, reached = set(), 0.0
    for place in np.argsort(distance, kind="stable"):
        chosen.add(int(possible[place]))
        reached += probabilities[possible[place]]
        if reached >= mass:
            break
    return chosen


@pytest.mark.parametrize("kind", ["normal", "flat", "zipf"])
@pytest.mark.parametrize("size", [5, 64, 3001])
@pytest.mark.parametrize("mass", [0.05, 0.4113, 0.937])
@pytest.mark.parametrize("top_p", [0.8711, 1.0])
def test_typical_follows_its_definition(kind: str, size: int, mass: float, top_p: float) -> None:
    row = row_of(kind, size, 11)
    before = compiled_probabilities(row, 1.3, top_p=top_p)
    got = compiled_probabilities(row, 1.3, top_p=top_p, typical_p=mass)
    expected = typical_set(before, mass)
    assert set(np.flatnonzero(got).tolist()) == expected
    share = before[sorted(expected)].sum()
    np.testing.assert_allclose(got[sorted(expected)], before[sorted(expected)] / share, rtol=1e-9)


@pytest.mark.parametrize(
    "filters",
    [{}, {"top_p": 0.9}, {"top_k": 9}, {"min_p": 0.02, "top_p": 0.95}, {"typical_p": 0.8}, {"temperature": 0.6}],
)
@pytest.mark.parametrize("size", [40, 300])
def test_draws_follow_the_probabilities(filters: dict[str, float], size: int) -> None:
    row = row_of("zipf", size, 5)
    scratch = scratch_for(row)
    settings_of = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0} | filters
    expected = compiled_probabilities(row, **settings_of)
    draws = 20_000
    tokens = [
        sampling.sample_row(row, *map(float, (settings_of["temperature"],)), int(settings_of["top_k"]),
                            settings_of["top_p"], settings_of["min_p"], settings_of["typical_p"], 3, 1, i, scratch)
        for i in range(draws)
    ]  # fmt: skip
    counts = np.bincount(tokens, minlength=size)
    assert not counts[expected == 0].any()
    likely = expected * draws > 5
    chi_square = ((counts - expected * draws) ** 2)[likely] / (expected * draws)[likely]
    freedom = likely.sum()
    assert chi_square.sum() < freedom + 5 * np.sqrt(2 * freedom)


def test_every_number_of_a_draw_matters_and_nothing_else() -> None:
    row = np.zeros(50_000, np.float32)
    tokens = {
        (seed, index, draw): sample(row, seed=seed, index=index, draw=draw)
        for seed in (0, 1, 2**32, 2**63 - 1)
        for index in (0, 1, 127)
        for draw in (0, 1, 2**20)
    }
    assert len(set(tokens.values())) >= len(tokens) - 1
    assert all(sample(row, seed=s, index=i, draw=d) == token for (s, i, d), token in reversed(tokens.items()))


def test_philox_gives_the_published_numbers() -> None:
    """The known answers of Random123."""
    ones = 2**64 - 1
    answers = [
        ((0, 0, 0), (0xE169C58D6627E8D5, 0x9B00DBD8BC57AC4C)),
        ((ones, ones, ones), (0x41C83B0E408F276D, 0x6D5451FDA20BC7C6)),
        ((0x299F31D0A4093822, 0x0370734413198A2E, 0x85A308D3243F6A88), (0x94FDCCEBD16CFE09, 0x24126EA15001E420)),
    ]
    for numbers, expected in answers:
        assert random_numbers.philox(*map(np.uint64, numbers)) == expected


def test_uniform_numbers_are_below_one_and_uniform() -> None:
    numbers = np.array([random_numbers.uniform(5, 0, i) for i in range(20_000)])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03
    counts = np.histogram(numbers, 20, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 60


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(KINDS), size=st.integers(1, 400), seed=st.integers(0, 2**32))
def test_greedy_takes_the_lowest_of_the_largest(kind: str, size: int, seed: int) -> None:
    row = row_of(kind, size, seed)
    assert sample(row, temperature=0) == row.argmax()


def test_zeros_of_both_signs_tie() -> None:
    assert sample(np.array([-1, -0.0, 0.0], np.float32), temperature=0) == 1
    assert sample(np.array([0.0, -0.0, -1], np.float32), temperature=0) == 0
    assert compiled_probabilities(np.array([-0.0, 0.0, -1], np.float32), 1.0, top_k=1).argmax() == 0


@pytest.mark.parametrize("size", [1, 3, 64, 131, 5000])
@pytest.mark.parametrize("temperature", [0.0, 5e-324, 0.7, 1.7e308])
@pytest.mark.parametrize("filters", [{}, {"top_p": 0.5}, {"top_k": 3}, {"min_p": 0.1}, {"typical_p": 0.5}])
def test_one_possible_token_is_always_taken(size: int, temperature: float, filters: dict[str, float]) -> None:
    for place in {0, size // 2, size - 1}:
        for logit in (-3.4e38, 0.0, 3.4e38):
            row = np.full(size, -np.inf, np.float32)
            row[place] = logit
            assert sample(row, temperature=temperature, **filters) == place


@pytest.mark.parametrize("place", [0, 63, 64, 128, 140])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_is_no_distribution_is_reported(place: int, bad: float, temperature: float) -> None:
    row = row_of("normal", 141, 0)
    row[place] = bad
    assert sample(row, temperature=temperature) == sampling.NOT_A_NUMBER
    assert sampling.rank_row(row, 2, np.zeros(2, np.int32), scratch_for(row))[0] == sampling.NOT_A_NUMBER
    nothing = np.full(141, -np.inf, np.float32)
    assert sample(nothing, temperature=temperature) == sampling.NOTHING_POSSIBLE


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-5])
def test_a_tiny_temperature_draws_among_the_largest(temperature: float) -> None:
    row = np.array([1, 3, 2.9999, 3, -1], np.float32)
    assert {sample(row, temperature=temperature, draw=i) for i in range(40)} == {1, 3}
    assert {sample(row, temperature=temperature, top_p=0.99, draw=i) for i in range(40)} == {1, 3}


def test_rows_are_sampled_one_by_one() -> None:
    rows = np.stack([row_of(kind, 300, i) for i, kind in enumerate(KINDS)])
    count = len(rows)
    temperatures = np.linspace(0, 1.5, count)
    top_ks, seeds = np.arange(count), np.arange(count) * 17
    top_ps, min_ps = np.linspace(0.5, 1, count), np.linspace(0.1, 0, count)
    indices, draws, tokens = np.arange(count)[::-1].copy(), np.arange(count) * 3, np.zeros(count, np.int64)
    sampling.sample_rows(
        rows, temperatures, top_ks, top_ps, min_ps, seeds, indices, draws, tokens, scratch_for(rows[0])
    )
    columns = zip(rows, temperatures, top_ks, top_ps, min_ps, seeds, indices, draws, strict=True)
    assert tokens.tolist() == [
        sample(row, t, int(k), p, m, 1.0, int(s), int(i), int(d)) for row, t, k, p, m, s, i, d in columns
    ]


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(KINDS), size=st.integers(1, 700), seed=st.integers(0, 2**32), count=st.integers(0, 100))
def test_ranking_equals_numpy(kind: str, size: int, seed: int, count: int) -> None:
    row = row_of(kind, size, seed)
    ids = np.zeros(100, np.int32)
    found, total = sampling.rank_row(row, count, ids, scratch_for(row))
    order = np.argsort(-row.astype(np.float64), kind="stable")[: min(count, np.isfinite(row).sum())]
    assert sorted(order.tolist()) == ids[:found].tolist()
    assert total == pytest.approx(np.logaddexp.reduce(row.astype(np.float64)), rel=1e-12, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 300), seed=st.integers(0, 2**32))
def test_forbidding_by_bits(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    allowed = rng.random(size) < 0.5
    words = np.packbits(np.pad(allowed, (0, -size % 32)), bitorder="little").view(np.uint32)
    row = rng.standard_normal(size).astype(np.float32)
    expected = np.where(allowed, row, -np.inf)
    sampling.forbid(row, words)
    np.testing.assert_array_equal(row, expected)
