"""Claude Code: a prompt, an answer as a stream of JSON, and the same session again."""

import json

from checks import API_KEY, BASE_URL, MODEL, check, force_tool, run_command

# The context of the model, as Claude Code asks its users to set it for models that it does not know.
SETTINGS = {"ANTHROPIC_BASE_URL": BASE_URL, "ANTHROPIC_AUTH_TOKEN": API_KEY, "ANTHROPIC_MODEL": MODEL}
SETTINGS |= {"ANTHROPIC_SMALL_FAST_MODEL": MODEL, "ANTHROPIC_DEFAULT_HAIKU_MODEL": MODEL}


@check
def prompt() -> None:
    run_command("claude", "-p", "Say hello in one word.", **SETTINGS)


@check
def stream_json_and_continue() -> None:
    form = ("--output-format", "stream-json", "--verbose")
    output = run_command("claude", "-c", "-p", "And now goodbye in one word.", *form, **SETTINGS)
    result = json.loads(output.splitlines()[-1])
    assert result["type"] == "result"
    assert not result["is_error"], result


@check
def tool_use() -> None:
    allowed = ("--allowedTools", "Read", "--max-turns", "3", "--output-format", "json")
    force_tool("Read")
    task = "Read the file hello.py and say what it does."
    run_command("claude", "-p", task, *allowed, may_fail_with="max_turns", **SETTINGS)
