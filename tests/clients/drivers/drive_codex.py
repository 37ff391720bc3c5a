"""Codex CLI: a prompt and the same session again, over its only protocol, Responses."""

import os
from pathlib import Path

from checks import API_KEY, API_URL, MODEL, TIMEOUT, check, force_tool, run_command

CONFIG = f"""
model = "{MODEL}"
model_provider = "local"

[model_providers.local]
name = "local"
base_url = "{API_URL}"
env_key = "LOCAL_KEY"
wire_api = "responses"
"""
folder = Path(os.environ["HOME"]) / ".codex"
folder.mkdir()
(folder / "config.toml").write_text(CONFIG)


@check
def prompt() -> None:
    run_command("codex", "exec", "--skip-git-repo-check", "Say hello in one word.", LOCAL_KEY=API_KEY)


@check
def json_and_resume() -> None:
    words = ("--skip-git-repo-check", "--json", "resume", "--last", "And goodbye in one word.")
    assert "turn.completed" in run_command("codex", "exec", *words, LOCAL_KEY=API_KEY)


@check
def tool_use() -> None:
    force_tool("exec_command")
    run_command(
        "codex",
        "exec",
        "--skip-git-repo-check",
        "List the files here.",
        seconds=200,
        may_fail_with=TIMEOUT,
        LOCAL_KEY=API_KEY,
    )
