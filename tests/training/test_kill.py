"""Killed at any moment, a run goes on with the numbers of one that nobody killed, to the last bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_runs import numbers, prepare_pages, weights

HERE = Path(__file__).parent


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize("lives", [6, pytest.param(150, marks=pytest.mark.slow)])
def test_a_killed_run_is_the_same_run(tmp_path: Path, lives: int) -> None:
    data = prepare_pages(tmp_path / "data")
    command = [sys.executable, str(HERE / "killed_runs.py"), str(data), str(tmp_path), str(lives)]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["moments"] > 200
    assert len(told["ends"]) >= 3, "it was killed several times"
    for log in ("log.jsonl", "evaluations.jsonl"):
        assert numbers(tmp_path / "killed", log) == numbers(tmp_path / "whole", log)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    folders = {path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()}
    assert folders == {path.name for path in (tmp_path / "whole" / "checkpoints").iterdir()}
