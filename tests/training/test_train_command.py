"""`deepseek train` as a user runs it: prepares, trains, is stopped, resumes, and the engine answers from the result."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from deepseek.engine.engine import Engine
from deepseek.models.auto import AutoModel
from deepseek.sampling import SamplingParams
from deepseek.tokenizer import AutoTokenizer
from tiny_runs import PAGES

SMOKE = Path(__file__).parent.parent.parent / "recipes" / "smoke.toml"
SHORT = ("stage.steps=20", "stage.batch_size=4", "checkpoints.every=10", "evaluation.batches=1")
DATA = """
[tokenizer]
vocab_size = 300

[held_out]
share = 0.2

[[source]]
name = "pages"
kind = "path"
path = "{pages}"
members = ["decisions/*.md"]
format = "text"
language = "en"
licence = "Apache-2.0"
"""


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def changes(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The smoke recipe made short, on our own pages."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "pages.toml").write_text(DATA.format(pages=PAGES))
    return (*SHORT, f"data.recipe={folder}/pages.toml", f"data.folder={folder}/prepared")


def command(changes: Sequence[str], *words: str) -> list[str]:
    options = [word for change in changes for word in ("--set", change)]
    return [str(Path(sys.executable).parent / "deepseek"), "train", str(SMOKE), *options, *words]


def run(changes: Sequence[str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(changes, *words), capture_output=True, text=True)


def test_train_stop_resume_answer(tmp_path: Path, changes: tuple[str, ...]) -> None:
    folder = tmp_path / "run"
    told = ""
    with subprocess.Popen(command(changes, "--out", str(folder)), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            told += line
            if line.startswith("step 1/"):  # told at once
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert "routed experts" in told
    assert "stopped and saved after step" in told
    command_again = " ".join(command(changes)[1:])
    assert f"deepseek {command_again.split()[0]} {SMOKE} --out {folder} --set stage.steps=20" in told
    assert told.rstrip().endswith("--resume")
    other = run(changes, "--out", str(folder), "--resume", "--set", "stage.steps=30")
    assert "begun with another recipe (stage.steps: 20 -> 30)" in other.stderr
    assert "routed experts" not in other.stderr
    done = run(changes, "--out", str(folder), "--resume", "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["step"], outcome["stopped_by_signal"]) == (20, None)
    assert outcome["stages"][0]["batch_size"] == 4
    assert len((folder / "log.jsonl").read_text().splitlines()) == 20

    checkpoint = folder / "checkpoints" / "final"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    params = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
    with Engine.from_pretrained(str(checkpoint)) as engine:
        result = engine.generate(tokenizer.encode("The engine"), params)
    assert not isinstance(result, list)
    assert len(result.token_ids) == 8


def test_the_engine_answers_from_a_dense_twin(tmp_path: Path, changes: tuple[str, ...]) -> None:
    """All of its layers are dense, the prediction layer too, though its configuration describes experts."""
    done = run(changes, "--out", str(tmp_path / "run"), "--set", "model.kind=dense", "--set", "stage.steps=2")
    assert done.returncode == 0, done.stderr
    checkpoint = tmp_path / "run" / "checkpoints" / "final"
    prompt = AutoTokenizer.from_pretrained(checkpoint).encode("The engine")
    params = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
    plain = AutoModel.from_pretrained(checkpoint, dtype="float32").generate(prompt, params)
    with Engine.from_pretrained(str(checkpoint), quantize="f32", activation_bits=16) as engine:
        result = engine.generate(prompt, params)
        assert engine.expert_layers == ()
    assert not isinstance(result, list)
    assert not isinstance(plain, list)
    assert result.token_ids == plain.token_ids


def test_a_dry_run_prints_what_the_dial_decided(tmp_path: Path, changes: tuple[str, ...]) -> None:
    done = run(changes, "--dry-run", "--json", "--size", "10", "--out", str(tmp_path / "run"))
    facts = json.loads(done.stdout)
    assert facts["model"]["parameters"] == pytest.approx(10e6, rel=0.2)
    assert facts["stages"][0]["learning_rate"] > 0
    assert not (tmp_path / "run").exists()


def test_a_dry_run_prepares_no_data(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    done = run((f"data.folder={folder}",), "--dry-run", "--json")
    assert json.loads(done.stdout)["stages"][0]["steps"] == 200
    assert not folder.exists()
    done = run((f"data.folder={folder}", "data.recipe=absent.toml"), "--dry-run")
    assert "absent.toml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_key_is_one_message() -> None:
    done = run(("stage.stepz=3",))
    assert done.returncode == 1
    assert "unknown key stage.stepz; known are name, steps" in done.stderr
    assert "Traceback" not in done.stderr
