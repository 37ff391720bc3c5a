"""The READMEs cannot drift: tables come from the code, commands and Python run as printed, both languages agree."""

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from readme_tables import READMES, ROOT, WITH_TABLES, with_tables

ENGLISH, CHINESE = READMES


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """Each `$ deepseek ...` line with the output printed below it."""
    found = []
    for block in blocks(ENGLISH, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            if command.startswith("deepseek "):
                found.append((command, output.strip()))
    return found


@pytest.mark.parametrize("path", WITH_TABLES, ids=lambda path: path.name)
def test_tables_are_those_of_the_code(path: Path) -> None:
    assert with_tables(path.read_text()) == path.read_text(), "run: python tests/docs/readme_tables.py"


def test_both_languages_show_the_same_code() -> None:
    for language in ("console", "python"):
        assert blocks(ENGLISH, language) == blocks(CHINESE, language)


@pytest.mark.parametrize(("command", "output"), commands(), ids=lambda value: value[:40])
def test_commands_run_as_printed(command: str, output: str, tmp_path: Path) -> None:
    words = [str(ROOT / word) if word.startswith("tests/") else word for word in shlex.split(command)]
    script = str(Path(sys.executable).parent / "deepseek")
    result = subprocess.run([script, *words[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    printed = "\n".join(line.rstrip() for line in result.stdout.replace(f"{ROOT}/", "").splitlines())
    assert output in printed


def test_python_runs_as_printed(tmp_path: Path) -> None:
    code = blocks(ENGLISH, "python")[1]
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("The capital of France is Paris.")
    assert (tmp_path / "my-model" / "model.safetensors").is_file()


def test_what_the_readme_names_exists() -> None:
    text = ENGLISH.read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link
    for name in re.findall(r"`([a-z0-9_]+/[a-z0-9_]+\.py|[a-z]+/)`", text):
        assert (ROOT / "src" / "deepseek" / name).exists(), name


ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, str]]:
    """`deepseek serve` as `make serve` runs it, on a free port: its address and what it printed."""
    script = str(Path(sys.executable).parent / "deepseek")
    with subprocess.Popen([script, "serve", "--port", "0"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        printed = ""
        while "Ctrl-C" not in printed:
            line = process.stderr.readline()
            assert line, f"the server ended: {printed}"
            printed += line
        found = re.search(r"http://127\.0\.0\.1:\d+", printed)
        assert found, printed
        yield found[0], printed
        process.terminate()
        process.stderr.read()


def test_make_serve_is_the_first_command(served: tuple[str, str]) -> None:
    address, printed = served
    first = blocks(ENGLISH, "console")[0].splitlines()
    assert first[0] == "$ make serve"
    assert "deepseek serve $(ARGS)" in (ROOT / "Makefile").read_text()
    said = [line.strip().replace(address, ADDRESS) for line in printed.splitlines()]
    assert [line.strip() for line in first[1:]] == said[-len(first[1:]) :]


def test_curl_line_runs_as_printed(served: tuple[str, str]) -> None:
    (line,) = (block for block in blocks(ENGLISH, "console") if block.startswith("$ curl "))
    _, url, *rest = shlex.split(line.removeprefix("$ ").replace("\\\n", ""))
    assert (rest[0], rest[2]) == ("-H", "-d")
    name, _, kind = rest[1].partition(": ")
    request = urllib.request.Request(url.replace(ADDRESS, served[0]), rest[3].encode(), {name: kind})
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert "Paris" in json.load(answer)["choices"][0]["message"]["content"]


def test_openai_client_runs_as_printed(served: tuple[str, str]) -> None:
    code = blocks(ENGLISH, "python")[0].replace(ADDRESS, served[0])
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def test_async_client_runs_as_printed(served: tuple[str, str]) -> None:
    code = blocks(ENGLISH, "python")[2].replace(ADDRESS, served[0])
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "Paris" in result.stdout
