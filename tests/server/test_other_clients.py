"""Clients in other languages and frameworks, unmodified: curl, the JavaScript `openai` package, LangChain."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from live_server import Live

BODY: dict[str, Any] = {
    "model": "smollm2", "messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0,
    "max_tokens": 30,
}  # fmt: skip
PATIENCE = 300.0
ANSWER = "The capital of France is Paris."
JAVASCRIPT = """
import OpenAI from 'openai';
const client = new OpenAI({ baseURL: process.env.URL + '/v1', apiKey: 'none', maxRetries: 0 });
const body = JSON.parse(process.env.BODY);
const whole = await client.chat.completions.create(body);
let streamed = '', usage = null;
const stream = await client.chat.completions.create({ ...body, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) { streamed += chunk.choices[0]?.delta?.content ?? ''; usage = chunk.usage ?? usage; }
let refused = null;
try { await client.chat.completions.create({ ...body, temperature: -1 }); }
catch (error) { refused = [error.status, error.param]; }
const models = (await client.models.list()).data.map((model) => model.id);
const told = { whole: whole.choices[0].message.content, streamed, tokens: usage.total_tokens, refused, models };
console.log(JSON.stringify(told));
"""
LANGCHAIN = """
import json, os
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

class City(BaseModel):
    name: str

body = json.loads(os.environ["BODY"])
chat = ChatOpenAI(base_url=os.environ["URL"] + "/v1", api_key="none", model=body["model"], temperature=0, max_tokens=30)
question = body["messages"][0]["content"]
streamed = "".join(chunk.content for chunk in chat.stream(question))
city = chat.with_structured_output(City, method="json_schema").invoke(question)
print(json.dumps({"whole": chat.invoke(question).content, "streamed": streamed, "city": city.name}))
"""


def fetched(what: str, command: list[str], folder: Path) -> None:
    """Skips where a registry gives nothing within PATIENCE: that is not the server's fault."""
    try:
        subprocess.run(command, cwd=folder, env=own_environment(), check=True, timeout=PATIENCE, capture_output=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{what} could not be fetched: {(error.stderr or b'').decode(errors='replace')[-300:] or error}")


def own_environment() -> dict[str, str]:
    """Without what would lead another Python to our packages, or a tracer to hosts that a machine may not reach."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LANGSMITH", "LANGCHAIN"))
    }
    return {**kept, "LANGSMITH_TRACING": "false"}


def output_of(command: list[str], server: Live, folder: Path) -> Any:
    environment = {**own_environment(), "URL": server.url, "BODY": json.dumps(BODY)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_curl(smollm2: Live, tmp_path: Path) -> None:
    words = ["curl", "-sS", "--fail-with-body", f"{smollm2.url}/v1/chat/completions"]
    told = output_of([*words, "-H", "Content-Type: application/json", "-d", json.dumps(BODY)], smollm2, tmp_path)
    assert told["choices"][0]["message"]["content"] == ANSWER
    streamed = subprocess.run(
        [*words, "-N", "-H", "Content-Type: application/json", "-d", json.dumps({**BODY, "stream": True})],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert streamed.endswith("data: [DONE]\n\n")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("node") is None or shutil.which("npm") is None, reason="node or npm is not installed")
def test_openai_for_javascript(smollm2: Live, tmp_path: Path) -> None:
    fetched("openai for JavaScript", ["npm", "install", "--silent", "--no-audit", "--no-fund", "openai@^6"], tmp_path)
    (tmp_path / "ask.mjs").write_text(JAVASCRIPT)
    told = output_of(["node", "ask.mjs"], smollm2, tmp_path)
    assert told["whole"] == told["streamed"] == ANSWER
    assert told["tokens"] > 0
    assert told["refused"] == [400, "temperature"]
    assert told["models"] == ["smollm2"]


@pytest.mark.slow
def test_langchain(smollm2: Live, tmp_path: Path) -> None:
    """In an environment of its own: it brings some fifty packages, and what it pins is not ours to keep."""
    python = tmp_path / "environment" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "environment"], check=True, timeout=PATIENCE)
    words = [
        "install",
        "-q",
        "--only-binary",
        ":all:",
        "--disable-pip-version-check",
        "--no-input",
        "langchain-openai>=1,<2",
    ]
    fetched("langchain-openai", [str(python), "-m", "pip", *words], tmp_path)
    (tmp_path / "ask.py").write_text(LANGCHAIN)
    told = output_of([str(python), "ask.py"], smollm2, tmp_path)
    assert told["whole"] == told["streamed"] == ANSWER
    assert told["city"]
