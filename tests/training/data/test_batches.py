"""Batches and mixtures: shares, epochs, any order of access, resuming, curricula."""

import itertools
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepseek.errors import ConfigError, DataError
from deepseek.training.data import Batches, Mixture, Stage
from deepseek.training.data.order import Apportionment, shuffled
from made_folders import make_folder

SIZES = {"a": 1003, "b": 517, "c": 260}  # tokens to train on


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources whose n-th token is n plus a thousand, two thousand ...: a token says where it is from."""
    return make_folder(tmp_path_factory.mktemp("made"), SIZES, held_out=50)


def opened(folder: Path, mixture: Mixture, *, length: int = 16, batch: int = 4, seed: int = 1) -> Batches:
    return Batches(folder, mixture, sequence_length=length, batch_size=batch, seed=seed)


def source_of(row: np.ndarray) -> str:
    return "abc"[int(row[0]) // 10_000 - 1]


shares = st.dictionaries(st.sampled_from("abcdefg"), st.integers(1, 1000).map(lambda n: n / 100), min_size=1)


@given(shares, st.integers(0, 3000))
def test_every_source_has_its_share_of_every_beginning(shares: dict[str, float], places: int) -> None:
    order = Apportionment(shares)
    total = sum(shares.values())
    seen: Counter[str] = Counter()
    for place in range(places):
        name, ordinal = order.at(place)
        assert ordinal == seen[name]
        seen[name] += 1
    for name, share in shares.items():
        assert order.count(name, places) == seen[name]
        assert abs(seen[name] - places * share / total) <= 2  # rounding, half a place on each level of the tree


@given(st.integers(1, 500), st.integers(0, 2**64 - 1))
def test_shuffling_is_a_permutation(count: int, key: int) -> None:
    assert sorted(shuffled(index, count, key) for index in range(count)) == list(range(count))


def test_shuffling_moves_things_about() -> None:
    order = [shuffled(index, 1000, 7) for index in range(1000)]
    assert sum(a + 1 == b for a, b in itertools.pairwise(order)) < 10
    assert order != [shuffled(index, 1000, 8) for index in range(1000)]
    assert abs(np.corrcoef(order, range(1000))[0, 1]) < 0.1


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(20)), st.integers(0, 5))
def test_any_order_of_access_gives_the_same_batches(folder: Path, order: list[int], seed: int) -> None:
    mixture = Mixture.of({"a": 0.5, "b": 0.3, "c": 0.2})
    straight = opened(folder, mixture, seed=seed)
    expected = [straight.at(step) for step in range(20)]
    other = opened(folder, mixture, seed=seed)
    for step in order:
        np.testing.assert_array_equal(other.at(step), expected[step])


def test_rows_are_windows_of_their_source_with_one_token_of_overlap(folder: Path) -> None:
    batches = opened(folder, Mixture.of({"a": 1, "b": 1}))
    for step in range(30):
        batch = batches.at(step)
        assert batch.shape == (4, 17)
        assert batch.dtype == np.int64
        assert (np.diff(batch) == 1).all()
        assert tuple(map(source_of, batch)) == batches.sources_at(step)


@pytest.mark.parametrize("length", [1, 16, 100, 259])
def test_no_sequence_comes_twice_within_an_epoch(folder: Path, length: int) -> None:
    batches = opened(folder, Mixture.of({"c": 1.0}), length=length, batch=1)
    count = (SIZES["c"] - 1) // length
    for epoch in range(3):
        starts = [int(batches.at(epoch * count + index)[0, 0]) for index in range(count)]
        assert len({start // length for start in starts}) >= count - 1  # of windows that do not overlap
        assert all(b - a >= length for a, b in itertools.pairwise(sorted(starts)))
    assert batches.epochs_at(2 * count) == {"c": 2.0}


def test_another_epoch_or_seed_has_another_order(folder: Path) -> None:
    mixture = Mixture.of({"a": 1.0})
    first = [int(opened(folder, mixture, batch=1).at(index)[0, 0]) for index in range(62)]
    second = [int(opened(folder, mixture, batch=1).at(62 + index)[0, 0]) for index in range(62)]
    other = [int(opened(folder, mixture, batch=1, seed=2).at(index)[0, 0]) for index in range(62)]
    assert first != second
    assert first != other


def test_a_source_reads_the_same_whatever_is_beside_it(folder: Path) -> None:
    alone = opened(folder, Mixture.of({"a": 1.0}), batch=1)
    mixed = opened(folder, Mixture.of({"a": 0.5, "b": 0.5}), batch=1)
    rows = [row for step in range(40) if source_of(row := mixed.at(step)[0]) == "a"]
    np.testing.assert_array_equal(rows, [alone.at(step)[0] for step in range(len(rows))])


def test_stages_change_shares_and_length_and_go_on_in_the_epoch(folder: Path) -> None:
    mixture = Mixture(
        (
            Stage(shares={"a": 1.0}, until_tokens=600),  # 10 steps of 64: the first that reach it
            Stage(shares={"a": 0.5, "b": 0.5}, until_tokens=1280),
            Stage(shares={"b": 1.0}, sequence_length=64, batch_size=1),
        )
    )
    batches = opened(folder, mixture)
    assert [batches.tokens_before(step) for step in (0, 9, 10, 11, 20, 21)] == [0, 576, 640, 704, 1280, 1344]
    assert {source_of(row) for step in range(10) for row in batches.at(step)} == {"a"}
    assert Counter(source_of(row) for step in range(10, 20) for row in batches.at(step)) == {"a": 20, "b": 20}
    assert batches.at(20).shape == (1, 65)
    assert batches.epochs_at(19)["b"] == 18 / 32
    assert batches.epochs_at(20) == {"a": 0.0, "b": 0.0}  # cut anew
    starts = [int(row[0]) for step in range(20) for row in batches.at(step) if source_of(row) == "a"]
    assert len(starts) == 60  # of the 62 of an epoch
    assert min(b - a for a, b in itertools.pairwise(sorted(starts))) >= 16


def test_held_out_text_is_in_order_and_apart(folder: Path) -> None:
    batches = opened(folder, Mixture.of({"a": 1.0}), length=16, batch=2)
    rows = [row for batch in batches.held_out("a") for row in batch]
    assert len(rows) == 3
    assert [int(row[0]) for row in rows] == [5000, 5016, 5032]
    assert [batch.shape for batch in batches.held_out("a")] == [(2, 17), (1, 17)]
    assert [batch.shape for batch in batches.held_out("b", sequence_length=500)] == [(1, 50)]


def test_a_pickled_copy_gives_the_same(folder: Path) -> None:
    batches = opened(folder, Mixture((Stage(shares={"a": 1.0}, until_tokens=100), Stage(shares={"b": 1}))))
    copy = pickle.loads(pickle.dumps(batches))  # noqa: S301 - our own
    np.testing.assert_array_equal(copy.at(3), batches.at(3))
    assert copy.fingerprint == batches.fingerprint
    assert opened(folder, batches.mixture, seed=2).fingerprint != batches.fingerprint


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"shares": {"a": -1}}, "shares.a must be a number"),
        ({"shares": {"a": 0}}, "all 0"),
        ({"shares": {}}, "at least one source"),
        ({"share": {"a": 1}}, "unknown key mixture.share"),
        ({"stages": [{"shares": {"a": 1}}, {"shares": {"a": 1}}]}, "until_tokens must grow"),
        ({"stages": [{"shares": {"a": 1}, "until_tokens": 5}]}, "last stage"),
        ({"stages": [{"shares": {"a": 1}, "until": 5}]}, r"unknown key mixture.stages\[0\].until"),
    ],
)
def test_a_wrong_mixture_is_refused_by_name(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Mixture.from_dict(values)


def test_a_mixture_survives_its_dictionary() -> None:
    mixture = Mixture((Stage(shares={"a": 1.0, "b": 2}, until_tokens=9, batch_size=3), Stage(shares={"a": 1})))
    assert Mixture.from_dict(mixture.to_dict()) == mixture


def test_what_cannot_be_served_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such source; it has a, b, c"):
        opened(folder, Mixture.of({"z": 1}))
    with pytest.raises(ConfigError, match="too few for one sequence of 300"):
        opened(folder, Mixture.of({"c": 1}), length=300)
    with pytest.raises(DataError, match="deepseek data"):
        opened(tmp_path, Mixture.of({"a": 1}))
