"""The command `llm`: a prompt, the conversation continued, a schema, a tool."""

import os
from pathlib import Path

from checks import API_KEY, API_URL, MODEL, check, run_command

MODELS = f"""
- model_id: local
  model_name: {MODEL}
  api_base: {API_URL}
  api_key_name: local
  supports_schema: true
  supports_tools: true
"""
folder = Path(os.environ["HOME"]) / "llm"
folder.mkdir()
(folder / "extra-openai-models.yaml").write_text(MODELS)
os.environ["LLM_USER_PATH"] = str(folder)
(folder / "keys.json").write_text(f'{{"local": "{API_KEY}"}}')


@check
def prompt() -> None:
    run_command("llm", "-m", "local", "-s", "Be brief.", "Say hello.")


@check
def continued() -> None:
    run_command("llm", "-c", "And goodbye.")


@check
def without_stream() -> None:
    run_command("llm", "-m", "local", "--no-stream", "-o", "temperature", "0", "-o", "max_tokens", "20", "Say hello.")


@check
def schema() -> None:
    run_command("llm", "-m", "local", "--schema", "name, age int", "Bob is 30 years old. Who is it?")


@check
def tool() -> None:
    words = ("-T", "llm_version", "--chain-limit", "3", "Which version of llm is this?")
    run_command("llm", "-m", "local", *words, may_fail_with="Chain limit")
