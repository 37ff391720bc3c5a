"""Which data a run is trained on: never another project's, never what the text was once."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from deepseek.errors import ConfigError, DataError
from deepseek.tokenizer import AutoTokenizer
from deepseek.training import prepared
from deepseek.training.data import Batches, Mixture, identity
from deepseek.training.data.batches import default_mixture
from deepseek.training.data.identity import recipe_key
from deepseek.training.data.recipe import DataRecipe
from deepseek.training.prepared import data_facts, data_of_run, expected_vocab_size, prepared_data
from deepseek.training.recipe import DataTable
from tiny_runs import prepare_pages

TEXT_RECIPE = """
[tokenizer]
vocab_size = 300

[duplicates]
similarity = 1

[[source]]
name = "text"
kind = "path"
path = "text"
format = "text"
language = "en"
licence = "CC0-1.0"
"""

RECIPE = """
[tokenizer]
{tokenizer}

[[source]]
name = "pages"
kind = "path"
path = "."
members = ["*.md"]
format = "text"
language = "en"
licence = "Apache-2.0"
"""


def unprepared(folder: Path, tokenizer: str) -> DataTable:
    path = folder / "data.toml"
    path.write_text(RECIPE.format(tokenizer=tokenizer))
    return DataTable(recipe=str(path), folder=str(folder / "absent"))


def test_the_vocabulary_is_known_before(tmp_path: Path) -> None:
    assert expected_vocab_size(unprepared(tmp_path, "vocab_size = 1234")) == 1234
    prepared = prepare_pages(tmp_path / "prepared")
    assert expected_vocab_size(DataTable(folder=str(prepared))) == 300
    shutil.copytree(prepared / "tokenizer", tmp_path / "given")
    assert expected_vocab_size(unprepared(tmp_path, 'path = "given"')) == 300  # beside the recipe, wherever we stand
    assert not (tmp_path / "absent").exists()


def test_data_that_cannot_be_prepared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no prepared data"):
        expected_vocab_size(DataTable(folder=str(tmp_path / "absent")))


def project(folder: Path, word: str) -> DataTable:
    """A data recipe with a text beside it; the recipes of two projects are equal."""
    (folder / "text").mkdir(parents=True)
    rows = [f"{word} number {number} lies in basket {number * 7 % 31}. " * 12 for number in range(40)]
    for number, row in enumerate(rows):
        path = folder / "text" / f"{number}.txt"
        path.write_text(row)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    (folder / "data.toml").write_text(TEXT_RECIPE)
    return DataTable(recipe=str(folder / "data.toml"))


def words_of(folder: Path) -> str:
    batches = Batches(folder, default_mixture(folder), sequence_length=32, batch_size=8, seed=0)
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    return " ".join(tokenizer.decode(row.tolist()) for row in batches.at(0))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("own_cache")
def test_two_projects_with_the_same_data_recipe_have_data_of_their_own(tmp_path: Path) -> None:
    first = prepared_data(project(tmp_path / "a", "apple"))
    second = prepared_data(project(tmp_path / "b", "zebra"))  # of the same length, with the same names and times
    assert "apple" in words_of(first)
    assert "zebra" in words_of(second)
    assert "apple" not in words_of(second)


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("folder", [None, "prepared"])
def test_changed_text_is_prepared_again_and_unchanged_text_is_not(
    tmp_path: Path, folder: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = project(tmp_path / "a", "apple")
    if folder is not None:
        table = replace(table, folder=str(tmp_path / folder))
    before = prepared_data(table)
    with monkeypatch.context() as patch:
        patch.setattr(prepared, "prepare", None)  # not called
        assert prepared_data(table) == before
    kept = (before / "dataset.json").read_bytes()
    for path in (tmp_path / "a" / "text").iterdir():
        status = path.stat()
        path.write_text(path.read_text().replace("apple", "mango"))
        os.utime(path, (status.st_atime, status.st_mtime))
    after = prepared_data(table)
    assert "mango" in words_of(after)
    if folder is None:  # what a run that began before reads is still there
        assert (before / "dataset.json").read_bytes() == kept
    shutil.rmtree(tmp_path / "a" / "text")
    with pytest.raises(DataError, match="there is no such file or folder"):
        prepared_data(table)


def test_large_text_is_known_by_place_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_HASHED_BYTES", 0)
    tables = [project(tmp_path / name, "apple") for name in "ab"]
    keys = {recipe_key(DataRecipe.from_toml(Path(str(table.recipe)))) for table in tables}
    assert len(keys) == 2
    os.utime(tmp_path / "a" / "text" / "0.txt")
    assert recipe_key(DataRecipe.from_toml(Path(str(tables[0].recipe)))) not in keys


@pytest.mark.usefixtures("own_cache")
def test_a_resumed_run_keeps_its_data(tmp_path: Path) -> None:
    table = project(tmp_path / "a", "apple")
    data, unchanged = data_of_run(table, None)
    facts = data_facts(data, default_mixture(data), 30_000)
    begun = facts.to_dict()
    assert unchanged
    assert data_of_run(table, begun) == (data, True)
    (tmp_path / "a" / "text" / "new.txt").write_text("A new apple. " * 40)
    assert data_of_run(table, begun) == (data, False)
    assert data_of_run(table, None)[0] != data
    shutil.rmtree(tmp_path / "a")
    assert data_of_run(table, begun) == (data, False)


def test_a_changed_tokenizer_encodes_the_text_anew(tmp_path: Path) -> None:
    shutil.copytree(prepare_pages(tmp_path / "pages") / "tokenizer", tmp_path / "given")
    table = unprepared(tmp_path, 'path = "given"')
    path = Path(str(table.recipe))
    before = recipe_key(DataRecipe.from_toml(path))
    tokenizer = tmp_path / "given" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert recipe_key(DataRecipe.from_toml(path)) != before


def test_passes_count_every_stage_of_a_mixture(tmp_path: Path) -> None:
    folder = prepare_pages(tmp_path / "prepared")
    mixture = Mixture.from_dict(
        {"stages": [{"until_tokens": 1000, "shares": {"pages": 1}}, {"shares": {"pages": 0.5}}]}
    )
    facts = data_facts(folder, mixture, 3 * data_facts(folder, mixture, 0).train_tokens)
    assert facts.passes == (3.0,)
    assert "3 passes over the text" in str(facts)
    assert "0.5 passes" in str(replace(facts, passes=(0.5,)))
    assert "0.0041 to 1.5 passes" in str(replace(facts, passes=(1.52, 0.00412)))
