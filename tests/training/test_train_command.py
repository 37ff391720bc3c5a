"""`deepseek train` as a user runs it: prepares, trains, is stopped, resumes, and the engine answers from the result."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deepseek.engine.engine import Engine
from deepseek.sampling import SamplingParams
from deepseek.tokenizer import AutoTokenizer

SMOKE = Path(__file__).parent.parent.parent / "recipes" / "smoke.toml"
SHORT = ("stage.steps=20", "stage.batch_size=4", "checkpoints.every=10", "evaluation.batches=1")


def command(*words: str) -> list[str]:
    changes = [word for change in SHORT for word in ("--set", change)]
    return [str(Path(sys.executable).parent / "deepseek"), "train", str(SMOKE), *changes, *words]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data goes here, not into the user's cache."""
    return tmp_path_factory.mktemp("cache")


def test_train_stop_resume_answer(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_CACHE", str(cache))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = tmp_path / "run"
    with subprocess.Popen(command("--out", str(run)), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = ""
        for line in process.stderr:
            told += line
            if line.startswith("step "):  # the first one is told at once
                process.send_signal(signal.SIGTERM)
                break
        told += process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM
    assert "routed experts" in told
    assert "stopped and saved after step" in told
    assert "go on with --resume" in told
    done = subprocess.run(command("--out", str(run), "--resume", "--json"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["step"], outcome["stopped_by_signal"]) == (20, None)
    assert outcome["stages"][0]["batch_size"] == 4
    assert len((run / "log.jsonl").read_text().splitlines()) == 20

    checkpoint = run / "checkpoints" / "final"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    params = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
    with Engine.from_pretrained(str(checkpoint)) as engine:
        result = engine.generate(tokenizer.encode("def main("), params)
    assert not isinstance(result, list)
    assert len(result.token_ids) == 8


def test_a_dry_run_prints_what_the_dial_decided(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_CACHE", str(cache))
    words = ("--dry-run", "--json", "--size", "10", "--out", str(tmp_path / "run"))
    done = subprocess.run(command(*words), capture_output=True, text=True)
    facts = json.loads(done.stdout)
    assert facts["model"]["parameters"] == pytest.approx(10e6, rel=0.25)
    assert facts["stages"][0]["learning_rate"] > 0
    assert not (tmp_path / "run").exists()


def test_a_wrong_key_is_one_message(tmp_path: Path) -> None:
    done = subprocess.run(command("--set", "stage.stepz=3"), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "unknown key stage.stepz; known are name, steps" in done.stderr
    assert "Traceback" not in done.stderr
