"""Continue's CLI: a prompt, the same session again, and all tools allowed."""

import os
from pathlib import Path

from checks import API_KEY, API_URL, MODEL, TIMEOUT, check, force_tool, run_command

CONFIG = f"""
name: Local
version: 1.0.0
schema: v1
models:
  - name: local
    provider: openai
    model: {MODEL}
    apiBase: {API_URL}
    apiKey: {API_KEY}
    roles: [chat, edit, apply]
"""
config = Path(os.environ["HOME"]) / "config.yaml"
config.write_text(CONFIG)


@check
def prompt() -> None:
    run_command("cn", "--config", str(config), "-p", "Say hello in one word.")


@check
def resumed() -> None:
    run_command("cn", "--config", str(config), "--resume", "-p", "And goodbye in one word.")


@check
def tool_use() -> None:
    force_tool("Read")
    run_command(
        "cn",
        "--config",
        str(config),
        "--auto",
        "-p",
        "Read the file hello.py and say what it does.",
        seconds=200,
        may_fail_with=TIMEOUT,
    )
