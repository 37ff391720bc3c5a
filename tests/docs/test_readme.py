"""The READMEs cannot drift: tables come from the code, commands and Python run as printed, both languages agree."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from readme_tables import READMES, ROOT, with_tables

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


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
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
    (code,) = blocks(ENGLISH, "python")
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


def test_make_chat_is_the_first_command() -> None:
    first = blocks(ENGLISH, "console")[0]
    assert first.startswith('$ make chat PROMPT="What is the capital of France?"\nThe capital of France is Paris.')
