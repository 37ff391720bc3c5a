"""Cline's CLI: a prompt and a task with tools, with an OpenAI-compatible server as provider."""

from checks import API_KEY, API_URL, MODEL, TIMEOUT, check, force_tool, run_command


@check
def set_up() -> None:
    run_command("cline", "auth", "-p", "openai", "-k", API_KEY, "-m", MODEL, "-b", API_URL)


@check
def prompt() -> None:
    run_command("cline", "--json", "--timeout", "200", "Say hello in one word.")


@check
def tool_use() -> None:
    force_tool("read_files")
    run_command(
        "cline",
        "--json",
        "--timeout",
        "200",
        "Read the file hello.py and say what it does.",
        seconds=200,
        may_fail_with=TIMEOUT,
    )
