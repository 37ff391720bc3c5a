"""`deepseek batch`: the same answers without a server, and none lost when it is interrupted."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deepseek.cli.app import app
from deepseek.errors import ConfigError, GenerationError
from deepseek.server.batches import offline
from deepseek.server.batches.database import NAME
from deepseek.server.batches.offline import Done, progress_folder, run_file
from deepseek.server.server_config import ServerConfig
from live_server import tiny_engine
from test_batches_api import chat_line, jsonl, rows

NAMES = [f"line {number}" for number in range(10)]


def write(folder: Path, *lines: Any) -> Path:
    file = folder / "requests.jsonl"
    file.write_bytes(jsonl(*lines))
    return file


def run(tiny_folder: Path, file: Path, output: Path, **more: Any) -> Done:
    engine = tiny_engine(tiny_folder, max_num_seqs=2)
    return run_file(engine, ServerConfig.of({"max_num_seqs": 2}, environment={}), "tiny", file, output, **more)


def test_a_file_is_answered(tiny_folder: Path, tmp_path: Path) -> None:
    refused = {"custom_id": "bad", "method": "POST", "url": "/v1/completions", "body": {"prompt": "a", "n": -1}}
    file, output = write(tmp_path, *map(chat_line, NAMES), refused), tmp_path / "answers.jsonl"
    done = run(tiny_folder, file, output)
    assert done == Done(10, 1, tmp_path / "answers.errors.jsonl")
    assert [json.loads(line)["custom_id"] for line in output.read_text().splitlines()] == NAMES
    assert json.loads((tmp_path / "answers.errors.jsonl").read_text())["response"]["status_code"] == 400
    assert not progress_folder(output).exists()


class Interrupted(Exception):
    pass


def test_an_interrupted_run_goes_on(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "_LOOK_SECONDS", 0.001)
    file, output = (
        write(tmp_path, *(chat_line(name, max_tokens=300, ignore_eos=True) for name in NAMES)),
        tmp_path / "answers.jsonl",
    )

    def interrupt(label: str, done: int, total: int | None, unit: str = "") -> None:
        if 0 < done < len(NAMES):
            raise Interrupted

    with pytest.raises(Interrupted):
        run(tiny_folder, file, output, report=interrupt)
    assert not output.exists()
    kept = dict(rows(progress_folder(output), "SELECT custom_id, answer FROM lines WHERE succeeded = 1"))
    assert kept
    other = write(tmp_path / "..", chat_line("other"))
    with pytest.raises(ConfigError, match="unfinished run of another file"):
        run(tiny_folder, other, output)
    run(tiny_folder, file, output)
    answers = {json.loads(line)["custom_id"]: line for line in output.read_bytes().splitlines(keepends=True)}
    assert list(answers) == NAMES
    assert answers.items() >= kept.items()


def test_a_file_of_something_else(tiny_folder: Path, tmp_path: Path) -> None:
    file, output = write(tmp_path, chat_line("a"), {"text": "hello"}), tmp_path / "answers.jsonl"
    with pytest.raises(GenerationError, match="line 2: body must be given"):
        run(tiny_folder, file, output)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_the_command(tiny_folder: Path, tmp_path: Path) -> None:
    file = write(tmp_path, chat_line("a", model="mine"), chat_line("b", model="mine"))
    words = ["batch", str(file), "-m", str(tiny_folder), "--quantize", "f32", "--served-model-name", "mine", "-np", "2"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert len((tmp_path / "requests.answers.jsonl").read_text().splitlines()) == 2
    assert not list(tmp_path.glob(f"*/{NAME}"))
