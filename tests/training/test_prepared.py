"""What is known of a run's data before it is prepared."""

import shutil
from pathlib import Path

import pytest

from deepseek.errors import ConfigError
from deepseek.training.prepared import expected_vocab_size
from deepseek.training.recipe import DataTable
from tiny_runs import prepare_pages

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
