"""Needles: what is planted, and that recall tells a model that copies from one that does not see so far."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from deepseek.models.decoder import Model
from deepseek.training.needle import FIELDS, NEEDLE_TOKENS, VALUES, needle_recall, plant_in_batch, planted
from deepseek.training.recipe import NeedleTable
from model_cases import CASES

HAY = np.arange(200) % 10


class Held:
    """Held-out text of small numbers, so that needles stand out."""

    sources = ("text",)
    vocab_size = 1000

    def held_out(self, source: str) -> Iterator[NDArray[np.int64]]:
        yield np.tile(HAY, (2, 1))


class Copier(Model):
    """Predicts what followed the latest earlier place of the last token, at most `sight` back."""

    def __init__(self, sight: int) -> None:
        super().__init__(CASES["llama"])
        self.sight = sight

    def forward(self, ids: Any, *args: Any, keep_logits: int = 1, **options: Any) -> Any:
        tokens = ids[0].tolist()
        logits = torch.zeros(1, keep_logits, 1000)
        for row, last in enumerate(range(len(tokens) - keep_logits, len(tokens))):
            for at in range(last - 1, max(-1, last - self.sight), -1):
                if tokens[at] == tokens[last]:
                    logits[0, row, tokens[at + 1]] = 1
                    break
        return SimpleNamespace(logits=logits)


def test_a_needle_stands_at_its_depth_and_at_the_end() -> None:
    for depth in (0.0, 0.5, 1.0):
        text = planted(HAY, depth, 1000, np.random.default_rng(0))
        needle = text[-NEEDLE_TOKENS:]
        assert (needle >= 250).all()
        place = round(depth * (200 - 2 * NEEDLE_TOKENS))
        assert (text[place : place + NEEDLE_TOKENS] == needle).all()
        assert (text != HAY).sum() == 2 * NEEDLE_TOKENS
    assert (HAY < 10).all()


def test_recall_is_that_of_a_model_that_copies_as_far_as_it_sees() -> None:
    table = NeedleTable(lengths=(100, 400), depths=(0.0, 0.5), trials=3)
    batches: Any = Held()
    assert needle_recall(Copier(10_000), batches, table, seed=0)["recall"] == {"100": 1.0, "400": 1.0}
    short = needle_recall(Copier(250), batches, table, seed=0)
    assert short["by_depth"] == {"100": {"0": 1.0, "0.5": 1.0}, "400": {"0": 0.0, "0.5": 1.0}}
    assert short["recall"] == {"100": 1.0, "400": 0.5}


def test_planting_in_a_batch_is_a_function_of_its_arguments() -> None:
    batch = np.tile(HAY, (400, 1))
    planted_batch = plant_in_batch(batch, 0.25, 1000, seed=3, index=5)
    assert (planted_batch == plant_in_batch(batch, 0.25, 1000, seed=3, index=5)).all()
    assert (planted_batch != plant_in_batch(batch, 0.25, 1000, seed=3, index=6)).any()
    rows = planted_batch[(planted_batch != batch).any(axis=1)]
    assert 0.15 * 400 < len(rows) < 0.35 * 400
    for row in rows:
        needles = row[row >= 250].reshape(-1, NEEDLE_TOKENS)
        assert (needles == needles[0]).all()
    assert (plant_in_batch(batch, 0.0, 1000, seed=3, index=5) == batch).all()


@pytest.mark.parametrize(("tokens", "places"), [(200, 6), (800, 25), (4000, 32)])
def test_a_longer_row_has_its_needle_at_more_places(tokens: int, places: int) -> None:
    row = plant_in_batch(np.tile(HAY, (1, tokens // 200)), 1.0, 1000, seed=3, index=5)[0]
    needles = row[row >= 250].reshape(-1, NEEDLE_TOKENS)
    assert len(needles) == places
    assert (needles == needles[0]).all()


def test_names_never_change_and_fields_share_no_value() -> None:
    seen = [planted(HAY, 0.5, 1000, np.random.default_rng(seed))[-NEEDLE_TOKENS:] for seed in range(1000)]
    names, values = np.array(seen)[:, ::2], np.array(seen)[:, 1::2]
    assert (names == names[0]).all()
    fields = [set(values[:, field]) for field in range(FIELDS)] + [set(names[0])]
    assert len(set.union(*fields)) == sum(map(len, fields))
    assert all(len(field) == VALUES for field in fields[:FIELDS])


@pytest.mark.parametrize("wrong", [{"lengths": [3]}, {"depths": [2.0]}, {"depths": []}, {"trials": 0}, {"window": 0}])
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NeedleTable(**wrong)
