"""A server that has no file descriptors left: line 39 of the list, with memory in test_memory.py.

What needs none is answered, from the first request on; what needs one is refused by 503 until there
are some again.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from deepseek.server import exhaustion
from deepseek.server.errors import as_api_error
from served_process import served

MESSAGES = [{"role": "user", "content": "hi"}]
CHAT: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 3}
SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
ORDINARY: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", {**CHAT, "stream": True, "n": 2, "logprobs": True, "top_logprobs": 2}),
    ("/v1/chat/completions", {**CHAT, "routed_experts": True, "seed": 1, "temperature": 1.0, "top_p": 0.5, "top_k": 4}),
    ("/v1/chat/completions", {**CHAT, "guided_choice": ["a", "b"]}),
    ("/v1/chat/completions", {**CHAT, "guided_regex": "[ab]+"}),
    ("/v1/chat/completions", {**CHAT, "response_format": {"type": "json_object"}}),
    ("/v1/chat/completions", {**CHAT, "max_tokens": 60, "tools": [TOOL], "tool_choice": "required"}),
    ("/v1/chat/completions", {**CHAT, "thinking_budget": 1, "presence_penalty": 1, "logit_bias": {"1": 1}}),
    ("/v1/completions", {"prompt": "hi", "max_tokens": 3, "echo": True, "logprobs": 1}),
    ("/v1/responses", {"input": "hi", "max_output_tokens": 3}),
    ("/v1/responses", {"input": "hi", "max_output_tokens": 3, "stream": True}),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 3}),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 3, "stream": True}),
    ("/v1/messages/count_tokens", {"messages": MESSAGES}),
    ("/v1/embeddings", {"input": ["a", "b"], "encoding_format": "base64"}),
    ("/v1/rerank", {"query": "a", "documents": ["b"]}),
    ("/v1/score", {"text_1": "a", "text_2": ["b"]}),
    ("/tokenize", {"messages": MESSAGES}),
    ("/detokenize", {"tokens": [1]}),
]
PAGES = (
    "/health", "/ready", "/version", "/metrics", "/v1/models", "/v1/server/status", "/openapi.json", "/",
    "/studio/js/main.js",
)  # fmt: skip


@contextmanager
def starved(pid: int) -> Iterator[None]:
    """The process cannot open one file more."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    free = min(set(range(len(used) + 1)) - used)  # a new descriptor is always the lowest
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def test_without_descriptors_from_the_first_request_on(tiny_folder: Path, tmp_path: Path) -> None:
    with (
        served(tiny_folder, data_dir=str(tmp_path)) as (process, address),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        assert client.get("/health").status_code == 200  # only so that its connection is there
        file = {"data": {"purpose": "batch"}, "files": {"file": ("a.jsonl", b"{}")}}
        costly = {**CHAT, "guided_grammar": 'root ::= "a"'}  # is tried in a process of its own
        with starved(process.pid):
            for path, body in ORDINARY:
                answer = client.post(path, json=body)
                assert answer.status_code == 200, (path, body, answer.text)
                assert "error" not in answer.text.replace('"error":null', ""), (path, answer.text)
            for page in PAGES:
                assert client.get(page).status_code == 200, page
            refusals = [client.post("/v1/files", **file), client.get("/v1/batches")]
            refusals.append(client.post("/v1/chat/completions", json=costly))
            for refusal in refusals:
                assert refusal.status_code == 503, refusal.text
                assert refusal.json()["error"]["code"] == "exhausted"
                assert "ulimit -n" in refusal.json()["error"]["message"]
                assert int(refusal.headers["retry-after"]) > 0
        assert client.post("/v1/files", **file).status_code == 200
        assert client.get("/v1/batches").status_code == 200
        assert client.post("/v1/chat/completions", json=costly).status_code == 200
        with starved(process.pid):  # now the store is open, and works without
            assert client.get("/v1/files").status_code == 200
        assert process.poll() is None


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(12, "Cannot allocate memory"), RuntimeError("can't start new thread")]
)
def test_what_is_refused_for_lack_of_memory(error: Exception) -> None:
    told = as_api_error(error)
    assert (told.status_code, told.code) == (503, "exhausted")
    assert "memory" in told.message
    outer = KeyError("x")
    outer.__cause__ = error
    assert as_api_error(outer).status_code == 503
    assert exhaustion.exhausted(OSError(2, "No such file")) is None
    assert as_api_error(OSError(2, "No such file")).status_code == 500
