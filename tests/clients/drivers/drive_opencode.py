"""opencode: a prompt, the same session again, and a tool, set up as its documentation says for local servers."""

import json
import os
from pathlib import Path

from checks import API_KEY, API_URL, MODEL, TIMEOUT, check, force_tool, run_command

PROVIDER = {
    "npm": "@ai-sdk/openai-compatible",
    "name": "Local",
    "options": {"baseURL": API_URL, "apiKey": API_KEY},
    "models": {MODEL: {"name": MODEL, "limit": {"context": 32768, "output": 4096}}},
}
folder = Path(os.environ["HOME"]) / ".config" / "opencode"
folder.mkdir(parents=True)
settings = {"provider": {"local": PROVIDER}, "model": f"local/{MODEL}", "autoupdate": False}
(folder / "opencode.json").write_text(json.dumps(settings))


@check
def prompt() -> None:
    run_command("opencode", "run", "Say hello in one word.")


@check
def continued() -> None:
    run_command("opencode", "run", "--continue", "--format", "json", "And goodbye in one word.")


@check
def tool_use() -> None:
    force_tool("read")
    run_command(
        "opencode",
        "run",
        "--auto",
        "Read hello.py with the read tool and say what it does.",
        seconds=200,
        may_fail_with=TIMEOUT,
    )
