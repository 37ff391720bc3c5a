"""`deepseek train --text`: from files to a model that answers, whatever their size, with recipes that say how."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepseek.errors import DataError
from deepseek.training.data.recipe import DataRecipe
from deepseek.training.recipe import Recipe
from deepseek.training.text_run import data_recipe, find_text, run_recipe
from tiny_runs import PAGES, lines

DEEPSEEK = str(Path(sys.executable).parent / "deepseek")


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("DEEPSEEK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def deepseek(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DEEPSEEK, *map(str, words)], cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with this project's pages in it, and something that is not text."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(PAGES / "decisions", folder / "pages")
    (folder / "pages" / "picture.png").write_bytes(b"\x89PNG")
    return folder


@pytest.fixture(scope="module")
def trained(pages: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    done = deepseek("train", "--text", "pages", "--size", "0.5", "--steps", "3", "--set", "seed=7", cwd=pages)
    assert done.returncode == 0, done.stderr
    return pages / "runs" / "pages", done


def test_a_folder_becomes_a_model(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    run, done = trained
    told = done.stderr
    facts = json.loads((run / "run.json").read_text())
    assert facts["data"]["folder"] in told
    assert f"{facts['data']['train_tokens']:,} tokens to train on" in told
    assert "passed over files that are not text (1 .png)" in told
    assert "step 1/3" in told
    assert " left" in told
    assert "step 3: held-out loss text" in told
    assert "deepseek generate runs/pages/checkpoints/final" in told
    assert "deepseek serve runs/pages/checkpoints/final" in told
    last = lines(run)[-1]
    assert f"loss {last['main_loss']:.4f} (MTP layers {last['mtp_loss']:.4f})" in told  # one loss everywhere


def test_its_recipes_repeat_the_run(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    run, _ = trained
    assert tomllib.loads((run / "recipe.toml").read_text())["seed"] == 7
    again = deepseek("train", run / "recipe.toml", "--out", "again", cwd=run)
    assert again.returncode == 0, again.stderr
    first, second = (path / "checkpoints" / "final" / "model.safetensors" for path in (run, run / "again"))
    assert first.read_bytes() == second.read_bytes()


def test_its_held_out_loss_is_measured_again(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    run, _ = trained
    measured = deepseek("evaluate", run, "--batches", "4", "--json", cwd=run)
    assert measured.returncode == 0, measured.stderr
    facts = json.loads(measured.stdout)
    told = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    assert facts["sources"]["text"]["loss"] == pytest.approx(told["loss"]["text"], abs=0.05)
    assert facts["model"].endswith("checkpoints/final")
    on_text = deepseek("evaluate", run / "checkpoints" / "final", "--text", PAGES / "carving.md", cwd=run)
    assert "carving.md" in on_text.stdout
    elsewhere = deepseek("evaluate", PAGES, cwd=run)
    assert elsewhere.returncode == 1
    assert "give text with --text FILE" in elsewhere.stderr


def test_a_second_run_is_refused_before_anything_is_prepared(
    trained: tuple[Path, subprocess.CompletedProcess[str]], pages: Path
) -> None:
    for words in (("--text", "pages"), ("runs/pages",)):
        done = deepseek("train", *words, cwd=pages)
        assert "already holds a run: continue it with --resume" in done.stderr


def test_a_run_on_text_is_resumed_by_its_folder(
    trained: tuple[Path, subprocess.CompletedProcess[str]], pages: Path
) -> None:
    done = deepseek("train", "runs/pages", "--resume", cwd=pages)
    assert done.returncode == 0, done.stderr
    assert "done: " in done.stderr


def test_one_line_is_enough(tmp_path: Path) -> None:
    (tmp_path / "line.txt").write_text("Once upon a time there was a line, and it was " + "very " * 20 + "short.")
    done = deepseek("train", "--text", "line.txt", "--size", "0.5", "--steps", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no text is held out" in done.stderr
    assert "held-out loss not measured" in done.stderr
    assert (tmp_path / "runs" / "line" / "checkpoints" / "final" / "config.json").exists()


def test_several_files_and_a_dry_run(pages: Path) -> None:
    words = ("train", "--text", "pages", "--text", PAGES / "training.md", "--dry-run", "--json")
    facts = json.loads(deepseek(*words, cwd=pages).stdout)
    assert facts["stages"][0]["steps"] > 0
    assert facts["optimizer"]["name"] == "adamw"
    assert facts["balance"]["bias_update_speed"] == 0.001
    assert facts["data"]["train_tokens"] > 1000
    told = deepseek(*words[:-1], "--set", "balance.bias_update_speed=0", cwd=pages).stderr
    assert "balance" in told
    assert "bias" not in told
    assert "not prepared yet" in told


def test_what_to_train_on_must_be_said_once(tmp_path: Path) -> None:
    for words, message in (
        (("train",), "give a recipe"),
        (("train", "x.toml", "--text", "y"), "not both"),
        (("train", "--text", "absent"), "there is no such file or folder; check --text"),
        (("train", "--text", ".", "--steps", "1", "--minutes", "2"), "only one of them"),
    ):
        done = deepseek(*words, cwd=tmp_path)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / ".notes.txt").write_text("hidden")
    with pytest.raises(DataError, match="there is no text in it: all 2 files are hidden, empty or of a kind"):
        find_text([tmp_path])
    assert "is a folder without recipe.toml" in deepseek("train", ".", cwd=tmp_path).stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
def test_a_second_interrupt_says_what_is_not_saved(pages: Path, tmp_path: Path) -> None:
    command = [DEEPSEEK, "train", "--text", str(pages / "pages"), "--size", "20", "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        told = ""
        for line in process.stderr:
            told += line
            if line.startswith("watch it"):  # before the first step, which takes seconds at this size
                break
        while not (tmp_path / "run" / "run.json").exists() and process.poll() is None:
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        told += process.stderr.read()
    assert process.returncode in (130, 128 + signal.SIGINT)
    assert "are not saved" in told or "stopped and saved" in told
    assert "--resume" in told or "no checkpoint yet" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("size", [100, 30_000, 3_000_000, 300_000_000])
def test_sizes_fit_the_text(tmp_path: Path, size: int) -> None:
    path = tmp_path / "text.txt"
    with path.open("wb") as file:
        file.truncate(size)
    text = find_text([path])
    data = DataRecipe.from_dict(data_recipe(text), folder=tmp_path)
    tokens = max(32, size // 3)
    vocab_size = data.tokenizer.vocab_size or 0
    recipe = Recipe.from_dict(run_recipe("x", text, vocab_size=vocab_size, train_tokens=tokens, size=None, steps=None))
    assert recipe.stage.sequence_length < tokens
    assert 16 <= recipe.stage.sequence_length <= 512
    assert 512 <= vocab_size <= 16_384
    assert (data.held_out.share == 0) == (size < 20_000)
    assert recipe.stage.tokens is not None
    assert recipe.stage.tokens >= 30_000
