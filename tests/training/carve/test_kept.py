"""A kept carving is taken as it is, and only for the same model, text and split."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from carve_models import DENSE, SPLIT, dense_model, windows

from deepseek.training.carve import kept
from deepseek.training.carve.carving import Carving
from deepseek.training.carve.kept import carve_once


@pytest.fixture
def carved(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The splits that were carved, in order."""
    plain, found = kept.carve, []

    def counted(*words: object, **options: object) -> Carving:
        found.append(words[2])
        return plain(*words, **options)

    monkeypatch.setattr(kept, "carve", counted)
    return found


@pytest.mark.parametrize("name", DENSE)
@torch.no_grad()
def test_a_carving_is_made_once(name: str, tmp_path: Path, carved: list[object]) -> None:
    ids = windows(DENSE[name])
    first, second = (carve_once(dense_model(DENSE[name]), ids, SPLIT, tmp_path) for _ in range(2))
    assert carved == [SPLIT]
    assert torch.equal(second.model(ids).logits, first.model(ids).logits)
    assert torch.equal(second.to_model()(ids).logits, first.to_model()(ids).logits)


def test_another_model_text_or_split_is_carved_anew(tmp_path: Path, carved: list[object]) -> None:
    config = DENSE["llama"]
    ids, other = windows(config), dense_model(config)
    carve_once(dense_model(config), ids, SPLIT, tmp_path)
    carve_once(dense_model(config), ids[:7], SPLIT, tmp_path)
    with torch.no_grad():
        other.model.norm.weight[0] += 1
    carve_once(other, ids[:7], SPLIT, tmp_path)
    carve_once(dense_model(config), ids, replace(SPLIT, active=2), tmp_path)
    assert len(carved) == 4


def test_a_damaged_file_is_carved_anew(tmp_path: Path, carved: list[object]) -> None:
    config = DENSE["llama"]
    carve_once(dense_model(config), windows(config), SPLIT, tmp_path)
    whole = (tmp_path / kept.FILE).read_bytes()
    (tmp_path / kept.FILE).write_bytes(whole[: len(whole) // 2])
    carve_once(dense_model(config), windows(config), SPLIT, tmp_path)
    assert len(carved) == 2
    assert (tmp_path / kept.FILE).read_bytes() == whole
