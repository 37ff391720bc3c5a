"""aider: a question and an edit, as its documentation sets up OpenAI-compatible servers."""

import subprocess
from pathlib import Path

from checks import API_KEY, API_URL, MODEL, check, run_command

SETTINGS = {"OPENAI_API_BASE": API_URL, "OPENAI_API_KEY": API_KEY}
COMMAND = ("aider", "--model", f"openai/{MODEL}", "--yes-always", "--no-check-update", "--no-show-release-notes")
LIMITED = f"- name: openai/{MODEL}\n  extra_params:\n    max_tokens: 200\n"  # a small model may repeat itself for ever
Path(".aider.model.settings.yml").write_text(LIMITED)
subprocess.run(["git", "init", "--quiet"], check=True)


@check
def question() -> None:
    run_command(*COMMAND, "--message", "/ask Say hello in one word.", **SETTINGS)


@check
def edit() -> None:
    run_command(*COMMAND, "--message", "Add a docstring to greet.", "hello.py", **SETTINGS)


@check
def without_stream() -> None:
    run_command(*COMMAND, "--no-stream", "--message", "/ask What does greet return?", "hello.py", **SETTINGS)
