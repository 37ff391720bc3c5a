"""The commands of docs/data.md and docs/training.md do what the pages say, in order, each in a folder of its own."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from deepseek.training.data.recipe import DataRecipe
from readme_tables import ROOT

DOCS = ROOT / "docs"


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)


def run(line: str, cwd: Path, *more: str) -> str:
    words = shlex.split(line.removeprefix("$ "))
    assert words[0] == "deepseek"
    script = str(Path(sys.executable).parent / "deepseek")
    result = subprocess.run([script, *words[1:], *more], cwd=cwd, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.copytree(DOCS / "decisions", tmp_path / "my-texts")
    return tmp_path


def test_own_text_to_a_model_that_writes(home: Path) -> None:
    trained, measured, written = (run(line, home) for line in blocks("data.md", "console")[0].strip().split("\n"))
    assert "20 steps" in trained
    assert "perplexity" in measured
    assert written.strip()
    for name in ("data.toml", "recipe.toml", "checkpoints/final", "checkpoints/main", "checkpoints/step-00000020"):
        assert (home / "runs" / "my-texts" / name).exists(), name


def test_the_data_recipe(home: Path) -> None:
    (recipe,) = blocks("data.md", "toml")
    (home / "data.toml").write_text(recipe.replace("vocab_size = 4096", "vocab_size = 600"))
    rows = "\n".join(
        f'{{"question": "What is {n} times {n}, please?", "answer": "It is {n * n}."}}' for n in range(300)
    )
    (home / "answers.jsonl").write_text(rows)
    found = DataRecipe.from_dict(tomllib.loads(recipe), folder=home)
    assert [source.name for source in found.sources] == ["my-texts", "answers"]
    text = (home / "data.toml").read_text() + "[cleaning]\nminimum_characters = 10\n[duplicates]\nsimilarity = 1\n"
    (home / "data.toml").write_text(text)
    assert "my-texts" in run(blocks("data.md", "console")[1].strip(), home)
    assert (home / "data" / "mine" / "report.json").exists()


def test_the_first_recipe(home: Path) -> None:
    shutil.copytree(ROOT / "recipes", home / "recipes")
    install, train, generate = blocks("training.md", "console")[0].strip().split("\n")
    assert install == '$ pip install -e ".[train]"'
    run(train, home, "--steps", "2", "--set", "evaluation.batches=1")
    assert run(generate, home).strip()


def test_a_training_loop_of_ones_own(home: Path) -> None:
    (code,) = blocks("training.md", "python")
    result = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    losses = [float(line.rpartition(" ")[2]) for line in result.stdout.splitlines()]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert (home / "my-model" / "tokenizer.json").is_file()


@pytest.mark.parametrize("name", ["data.md", "training.md", "carving.md"])
def test_links_lead_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", (DOCS / name).read_text()):
        assert (DOCS / link).exists(), link


def test_what_is_often_changed_can_be(home: Path) -> None:
    rows = re.findall(r"\| `(--[^`]+)`", (DOCS / "training.md").read_text())
    assert len(rows) >= 3
    for row in rows:
        run(f"deepseek train {ROOT / 'recipes' / 'smoke.toml'} --dry-run {row}", home)
