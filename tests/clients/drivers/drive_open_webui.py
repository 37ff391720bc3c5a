"""Open WebUI: its server, set up for an OpenAI-compatible one, asked as its page does."""

import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from checks import API_KEY, API_URL, MODEL, check

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    PORT = free.getsockname()[1]
PAGE = f"http://127.0.0.1:{PORT}"
folder = Path(os.environ["HOME"]) / "data"
folder.mkdir()
SETTINGS = {
    "DATA_DIR": str(folder), "WEBUI_AUTH": "False", "WEBUI_SECRET_KEY": "secret", "ENABLE_OLLAMA_API": "False",
    "OPENAI_API_BASE_URL": API_URL, "OPENAI_API_KEY": API_KEY, "OFFLINE_MODE": "True", "RAG_EMBEDDING_ENGINE": "openai",
    "RAG_OPENAI_API_BASE_URL": API_URL, "RAG_OPENAI_API_KEY": API_KEY, "RAG_EMBEDDING_MODEL": MODEL,
}  # fmt: skip
token = ""


def ask(path: str, body: Any = None) -> str:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(PAGE + path, data, headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=200) as answer:
        return answer.read().decode()


def await_start() -> None:
    for _ in range(300):
        try:
            ask("/health")
            return
        except OSError:
            time.sleep(1)
    raise RuntimeError("Open WebUI did not start")


TURNS = [{"role": "user", "content": "Say hello in one word."}]
log = (folder / "log.txt").open("w")
server = subprocess.Popen(
    ["open-webui", "serve", "--host", "127.0.0.1", "--port", str(PORT)],
    env={**os.environ, **SETTINGS}, stdout=log, stderr=log,
)  # fmt: skip


@check
def starts_and_lists_the_model() -> None:
    global token
    await_start()
    token = json.loads(ask("/api/v1/auths/signin", {"email": "", "password": ""}))["token"]
    assert MODEL in [model["id"] for model in json.loads(ask("/api/models"))["data"]]


@check
def chat() -> None:
    body = {"model": MODEL, "messages": TURNS, "params": {}, "features": {}, "variables": {}, "tool_servers": []}
    assert "hello" in ask("/api/chat/completions", {**body, "stream": False}).lower()
    assert "data: " in ask("/api/chat/completions", {**body, "stream": True, "stream_options": {"include_usage": True}})


@check
def advanced_parameters() -> None:
    """As the page's panel sends them: some are Ollama's and llama.cpp's names."""
    params = {"temperature": 0.5, "top_k": 40, "min_p": 0.05, "repeat_penalty": 1.1, "num_predict": 20, "seed": 1}
    params |= {"stop": ["\n\n"], "mirostat": 0, "num_ctx": 4096, "keep_alive": "5m", "max_tokens": 20}
    assert ask("/api/chat/completions", {"model": MODEL, "messages": TURNS, "stream": False, "params": params})


@check
def tasks() -> None:
    history = [*TURNS, {"role": "assistant", "content": "Hello!"}]
    for task in ("title", "tags", "follow_up", "emoji"):
        body = {"model": MODEL, "messages": history, "prompt": "Hello!", "chat_id": "one"}
        ask(f"/api/v1/tasks/{task}/completions", body)
    ask("/api/v1/tasks/queries/completions", {"model": MODEL, "messages": history, "type": "web_search"})


@check
def embeddings() -> None:
    assert ask("/api/embeddings", {"model": MODEL, "input": ["a cat"]})


server.terminate()
server.wait(30)
print((folder / "log.txt").read_text()[-4000:])
