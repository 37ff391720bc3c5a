"""Spellings of other programs, suggestions and help: what users type first, and what they read."""

import re

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from deepseek.cli.app import app
from deepseek.cli.command import near_options
from deepseek.cli.habits import translate

OPTIONS = {"--max-tokens": True, "--temperature": True, "--prompt": True, "-p": True, "--json": False}
VERBS = list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--temp 0 -n 5", "--temperature 0 --max-tokens 5"),
        ("--max_tokens=5", "--max-tokens=5"),
        ("--max-new-tokens 5 --json", "--max-tokens 5 --json"),
        ("-m folder --json", "folder --json"),
        ("--json --model=folder", "folder --json"),
        ("-p -m", "-p -m"),  # a value, though it looks like an option
        ("-- --temp", "-- --temp"),
        ("--unknown 3", "--unknown 3"),
    ],
)
def test_other_spellings(given: str, meant: str) -> None:
    translated = translate(given.split(), OPTIONS, takes_model=True)
    assert (" ".join(translated.args), translated.notes) == (meant, ())


@pytest.mark.parametrize(
    ("given", "left", "named"),
    [
        ("-ngl 99 --json", "--json", ["-ngl"]),
        ("--n-gpu-layers=99 --trust_remote_code", "", ["--n-gpu-layers", "--trust_remote_code"]),
        ("-fa on --json", "--json", ["-fa"]),
        ("-fa --json", "--json", ["-fa"]),
    ],
)
def test_what_changes_nothing_here_is_ignored_with_a_note(given: str, left: str, named: list[str]) -> None:
    translated = translate(given.split(), OPTIONS, takes_model=True)
    assert " ".join(translated.args) == left
    assert [note.split(" is ignored: ")[0] for note in translated.notes] == named


@given(st.lists(st.text(max_size=12), max_size=6))
def test_translating_translated_words_changes_nothing(words: list[str]) -> None:
    once = translate(words, OPTIONS, takes_model=True)
    assert translate(once.args, OPTIONS, takes_model=True).args == once.args


def test_what_begins_alike_is_suggested_first() -> None:
    assert near_options("--tem", ["--system", "--temperature", "--stop"])[0] == "--temperature"
    assert near_options("--max-token", ["--max-tokens", "--max-num-seqs"])[0] == "--max-tokens"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("columns", [50, 80, 120])
def test_help_fits_and_cuts_no_name(verb: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = re.sub(r"\x1b\[[0-9;]*m", "", CliRunner().invoke(app, [verb, "--help"]).output)
    assert max(map(len, text.splitlines())) <= columns
    assert "…" not in text
    for option in typer.main.get_command(app).commands[verb].params:  # type: ignore[attr-defined]
        for name in option.opts if option.opts[0].startswith("-") else ():
            assert name in text


def test_a_prompt_in_the_models_place_is_recognized() -> None:
    for verb in ("generate", "chat"):
        result = CliRunner().invoke(app, [verb, "Once upon a time"])
        assert "is that the prompt? give it with --prompt" in str(result.exception)
        extra = CliRunner().invoke(app, [verb, "smollm2", "Once upon a time"])
        assert extra.exit_code == 2
        assert "the prompt goes with --prompt" in " ".join(extra.output.replace("│", " ").split())
