"""A recipe to a folder, end to end: what is in it, what is redone, and what a kill leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from deepseek.errors import ConfigError, DataError
from deepseek.tokenizer import AutoTokenizer, tokenizer_to_gguf
from deepseek.training.data import Batches, Mixture, documents, shards
from deepseek.training.data.batches import default_mixture
from deepseek.training.data.prepare import prepare
from deepseek.training.data.recipe import DataRecipe
from deepseek.training.data.shards import TokenStream, damaged_files

RECIPE = """
[tokenizer]
vocab_size = 400
[cleaning]
minimum_characters = 40
[held_out]
share = 0.2
[[source]]
name = "prose"
kind = "path"
path = "prose"
members = ["*.txt"]
format = "text"
language = "en"
licence = "CC0-1.0"
[[source]]
name = "lines"
kind = "path"
path = "lines.jsonl"
format = "jsonl"
field = "body"
language = "zh"
licence = "CC0-1.0"
"""


def sentence(number: int) -> str:
    words = "the quick brown fox jumps over lazy dogs while seven wizards quietly box and judge".split()
    return " ".join(words[(number * 7 + place * place * (number % 5 + 1)) % len(words)] for place in range(20))


def text(number: int) -> str:
    return f"Chapter {number * 7919}.\n\n" + ". ".join(f"{sentence(number * 31 + n)} {number * n}" for n in range(8))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A recipe beside two sources of 40 documents, one of which is there three times in different dress."""
    (tmp_path / "prose").mkdir()
    for number in range(40):
        (tmp_path / "prose" / f"{number:02}.txt").write_text(text(number))
    (tmp_path / "prose" / "short.txt").write_text("Too short.")
    chinese = [
        f"第{number}回：" + "".join(chr(0x4E00 + (number * 97 + n * n) % 500) for n in range(60))
        for number in range(40)
    ]
    rows = [*chinese, text(3).upper(), text(3) + " More.", chinese[0]]
    (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps({"body": row}) for row in rows))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def recipe(home: Path) -> DataRecipe:
    return DataRecipe.from_toml(home / "recipe.toml")


def contents(out: Path) -> dict[str, bytes]:
    """Every file that training reads."""
    paths = [*sorted((out / "shards").rglob("*")), *sorted((out / "tokenizer").rglob("*")), out / "dataset.json"]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths if path.is_file()}


def test_documents_come_back_from_the_shards(home: Path) -> None:
    told = prepare(recipe(home), home / "out")
    tokenizer = AutoTokenizer.from_pretrained(home / "out" / "tokenizer")
    found = {"train": [], "held_out": []}  # type: dict[str, list[str]]
    for split, texts in found.items():
        folder = home / "out" / "shards" / "prose"
        stream = TokenStream(folder, split, json.loads((folder / "shard.json").read_text()))
        start = 0
        for end in stream.ends().tolist():
            ids = stream.read(start, end).tolist()
            assert ids[0] == tokenizer.bos_token_id
            assert ids[-1] == tokenizer.eos_token_id
            texts.append(tokenizer.decode(ids[1:-1]))
            start = end
        assert start == stream.tokens
    assert sorted(found["train"] + found["held_out"]) == sorted(text(number) for number in range(40))
    assert found["held_out"]
    prose, lines = told["sources"]
    assert (prose["too_short"], prose["exact"], prose["near"]) == (1, 0, 0)
    assert (lines["exact"], lines["near"]) == (2, 1)
    assert (prose["chinese"], lines["language"]) == (0.0, "zh")
    assert lines["chinese"] > 0.8
    assert told == json.loads((home / "out" / "report.json").read_text())


def test_batches_of_a_prepared_folder(home: Path) -> None:
    prepare(recipe(home), home / "out")
    batches = Batches(home / "out", default_mixture(home / "out"), sequence_length=32, batch_size=2, seed=1)
    assert batches.vocab_size == 400
    assert batches.sources == ("prose", "lines")
    assert batches.at(0).max() < 400
    assert sum(batch.shape[0] for batch in batches.held_out("prose")) > 1


def test_the_tokenizer_chats_and_goes_into_gguf(home: Path) -> None:
    prepare(recipe(home), home / "out")
    tokenizer = AutoTokenizer.from_pretrained(home / "out" / "tokenizer")
    assert tokenizer.vocab_size == 400
    words = "Quick 深度 \u0000\U0001f600 naïve\n\n   x == 1234"
    assert tokenizer.decode(tokenizer.encode(words)[1:]) == words
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<｜Assistant｜>"}]
    ids = tokenizer.encode_chat(chat)
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.token_to_id("<｜Assistant｜>") or -1) == 1  # the template's, not the user's
    assert tokenizer_to_gguf(tokenizer)["tokenizer.ggml.pre"] == "deepseek-v3"


def test_control_tokens_in_a_text_stay_text(home: Path) -> None:
    (home / "prose" / "00.txt").write_text("An end <｜end▁of▁sentence｜> that is none. " * 3)
    prepare(recipe(home), home / "out")
    folder = home / "out" / "shards" / "prose"
    index = json.loads((folder / "shard.json").read_text())
    eos = AutoTokenizer.from_pretrained(home / "out" / "tokenizer").eos_token_id
    for split in shards.SPLITS:
        stream = TokenStream(folder, split, index)
        assert (stream.read(0, stream.tokens) == eos).sum() == index["splits"][split]["documents"]


def test_a_tokenizer_that_is_there_already(home: Path) -> None:
    prepare(recipe(home), home / "first")
    given = (home / "recipe.toml").read_text().replace("vocab_size = 400", 'path = "first/tokenizer"')
    (home / "recipe.toml").write_text(given)
    prepare(recipe(home), home / "second")
    first, second = contents(home / "first"), contents(home / "second")
    assert {name: first[name] for name in first if name.endswith(".bin")} == {
        name: second[name] for name in second if name.endswith(".bin")
    }


def done_by(monkeypatch: pytest.MonkeyPatch, home: Path, **changes: Any) -> list[str]:
    """Which folders a run writes."""
    written: list[str] = []
    for writer in (documents.DocumentWriter, shards.ShardWriter):
        honest = writer.__enter__

        def noted(self: Any, honest: Any = honest) -> Any:
            written.append(f"{self.folder.parent.name}/{self.folder.name}")
            return honest(self)

        monkeypatch.setattr(writer, "__enter__", noted)
    prepare(recipe(home), home / "out", **changes)
    monkeypatch.undo()
    return written


def test_a_second_run_does_nothing_and_a_change_only_what_depends_on_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = ["documents/prose", "documents/lines", "shards/prose", "shards/lines"]
    assert done_by(monkeypatch, home) == everything
    before = contents(home / "out")
    assert done_by(monkeypatch, home) == []
    assert contents(home / "out") == before
    (home / "out" / "shards" / "lines" / "train-00000.bin").write_bytes(b"cut")
    assert done_by(monkeypatch, home) == ["shards/lines"]
    assert contents(home / "out") == before
    shutil.rmtree(home / "out" / "documents" / "prose")
    assert done_by(monkeypatch, home) == ["documents/prose"]
    (home / "prose" / "new.txt").write_text(text(99))
    assert done_by(monkeypatch, home) == ["documents/prose", "shards/prose", "shards/lines"]  # another tokenizer too


def test_adding_a_source_leaves_the_held_out_text_of_the_others(home: Path) -> None:
    (home / "recipe.toml").write_text(RECIPE.partition('[[source]]\nname = "lines"')[0])
    prepare(recipe(home), home / "one")
    given = (home / "recipe.toml").read_text().replace("vocab_size = 400", 'path = "one/tokenizer"')
    (home / "recipe.toml").write_text(given + RECIPE[RECIPE.index('[[source]]\nname = "lines"') :])
    prepare(recipe(home), home / "two")
    held_out = [(home / out / "shards" / "prose" / "held_out-00000.bin").read_bytes() for out in ("one", "two")]
    assert held_out[0] == held_out[1]


KILLED = """
import os, signal, sys
from pathlib import Path
from deepseek.training.data.prepare import prepare
from deepseek.training.data.recipe import DataRecipe
home, label, left = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
def report(told, done, total, unit="bytes"):
    global left
    left -= told.startswith(label)
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
prepare(DataRecipe.from_toml(home / "recipe.toml"), home / "out", report=report)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("label", "after", "left_to_do"),
    [
        ("reading prose", 20, ["documents/prose", "documents/lines", "shards/prose", "shards/lines"]),
        ("reading lines", 10, ["documents/lines", "shards/prose", "shards/lines"]),
        ("comparing", 5, ["shards/prose", "shards/lines"]),
        ("training", 30, ["shards/prose", "shards/lines"]),
        ("encoding prose", 0, ["shards/prose", "shards/lines"]),
        ("encoding lines", 0, ["shards/lines"]),
    ],
)
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    home: Path, monkeypatch: pytest.MonkeyPatch, label: str, after: int, left_to_do: list[str]
) -> None:
    command = [sys.executable, "-c", KILLED, str(home), label, str(after)]
    assert subprocess.run(command, env=os.environ, check=False).returncode == -signal.SIGKILL
    with pytest.raises(DataError, match="deepseek data"):
        Batches(home / "out", Mixture.of({"prose": 1}), sequence_length=8, batch_size=1, seed=0)
    assert done_by(monkeypatch, home) == left_to_do
    shutil.copytree(home / "out", home / "resumed")
    shutil.rmtree(home / "out")
    prepare(recipe(home), home / "out")
    assert contents(home / "resumed") == contents(home / "out")
    assert not [path for path in (home / "resumed").rglob("*") if path.name.endswith(".partial")]


def test_damage_on_the_disk_is_found(home: Path) -> None:
    prepare(recipe(home), home / "out")
    folder = home / "out" / "shards" / "prose"
    assert damaged_files(folder) == []
    data = np.memmap(folder / "train-00000.bin", np.uint8, "r+")
    data[10] ^= 1
    data.flush()
    assert damaged_files(folder) == ["train-00000.bin"]


def test_large_vocabularies_and_many_files(tmp_path: Path) -> None:
    with shards.ShardWriter(tmp_path / "x", 100_000, file_tokens=10) as writer:
        for start in range(0, 90_000, 9_000):
            writer.add("train", [start + n for n in range(7)])
        index = writer.finish("")
    assert [file["tokens"] for file in index["splits"]["train"]["files"]] == [10] * 7
    stream = TokenStream(tmp_path / "x", "train", index)
    assert stream.read(5, 23).tolist() == [start + n for start in range(0, 90_000, 9_000) for n in range(7)][5:23]
    assert stream.ends().tolist() == [7 * n for n in range(1, 11)]


def test_a_source_with_nothing_to_train_on_is_an_error(home: Path) -> None:
    (home / "recipe.toml").write_text(RECIPE.replace('members = ["*.txt"]', 'members = ["*.md"]'))
    with pytest.raises(DataError, match=r"source prose: no document is left.* 0 were read.*members"):
        prepare(recipe(home), home / "out")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("vocab_size = 400", "vocab_size = 100", "tokenizer.vocab_size must be a whole number, 300 or more"),
        ("vocab_size = 400", "vocab = 400", "unknown key tokenizer.vocab; known are"),
        ("share = 0.2", "share = 1.5", "held_out.share must be a number from 0 to below 1"),
        ('name = "lines"', 'name = "prose"', "two sources are called 'prose'"),
        ('name = "lines"', 'name = "../x"', "name must be of lower-case letters"),
        (
            'kind = "path"\npath = "prose"',
            'kind = "ftp"\npath = "prose"',
            r"source\[0\].kind must be one of path, python",
        ),
        ('path = "prose"', 'package = "prose"', r"source\[0\]: missing key path \(a source of kind path"),
        ('path = "prose"\n', 'path = "prose"\npackage = "p"\n', "source prose: package goes with wheel"),
        (
            'name = "prose"\nkind = "path"\npath = "prose"',
            'name = "prose"\nkind = "path"\npaht = "prose"\nlang = "en"',
            r"unknown keys source\[0\].paht, source\[0\].lang; known are name",
        ),
        ('path = "prose"\n', 'path = "prose"\ndrop_lines = ["("]\n', "no regular expression"),
        (
            'kind = "path"\npath = "prose"\nmembers = ["*.txt"]\nformat = "text"\nlanguage = "en"\nlicence = "CC0-1.0"',
            'kind = "wheel"\nformat = "text"',
            r"source\[0\]: missing keys package, licence, language",
        ),
        ("[tokenizer]\nvocab_size = 400\n", "", r"missing table \[tokenizer\]"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(home: Path, old: str, new: str, words: str) -> None:
    assert old in RECIPE
    (home / "recipe.toml").write_text(RECIPE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=words):
        recipe(home)


def test_shares_are_of_all_sources_or_none(home: Path) -> None:
    (home / "recipe.toml").write_text(RECIPE + "share = 0.5\n")
    with pytest.raises(ConfigError, match="for all or for none"):
        prepare(recipe(home), home / "out")


def test_the_verb(home: Path) -> None:
    from deepseek.cli.app import app

    command = ["data", str(home / "recipe.toml"), "--out", str(home / "out")]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "prose" in shown.output
    assert "source prose: passed over 1 documents shorter than minimum_characters" in shown.output
    again = CliRunner().invoke(app, [*command, "--json", "--without", "lines"])
    told = json.loads(again.stdout)
    assert [entry["name"] for entry in told["sources"]] == ["prose"]
    wrong = CliRunner().invoke(app, [*command, "--without", "poems"])
    assert isinstance(wrong.exception, ConfigError)


def test_the_recipes_of_the_project_are_sound() -> None:
    folder = Path(__file__).parents[3] / "recipes" / "data"
    found = {path.stem: DataRecipe.from_toml(path) for path in folder.glob("*.toml")}
    assert {"smoke", "open-mixture"} <= found.keys()
    mixture = found["open-mixture"]
    assert sum(source.share or 0 for source in mixture.sources) == pytest.approx(1)
    assert all(source.sha256 for source in mixture.sources if source.version)
    assert all(source.package is None and source.kind == "python" for source in found["smoke"].sources)
