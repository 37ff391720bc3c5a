"""Base addresses with a slash, a /v1 or a prefix too many or too few; HEAD and OPTIONS; errors that say where to go."""

from typing import Any

import pytest

from live_server import Live

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions", "/v1/chat/completions/", "/chat/completions", "/chat/completions/",
        "//v1//chat///completions", "/v1/v1/chat/completions", "/api/v1/chat/completions",
        "/openai/v1/chat/completions",
    ],
)  # fmt: skip
def test_a_chat_reaches_its_route(tiny: Live, path: str) -> None:
    answer = tiny.post(path, CHAT)
    assert answer.status_code == 200
    assert answer.json()["object"] == "chat.completion"


def test_other_routes_without_or_with_the_prefix(tiny: Live) -> None:
    for path in ("/completions", "/v1/v1/completions/"):
        assert tiny.post(path, {"prompt": "hi", "max_tokens": 1}).status_code == 200
    assert tiny.post("/embeddings", {"input": "hi"}).status_code == 200
    assert tiny.post("/responses", {"input": "hi", "max_output_tokens": 1}).status_code == 200
    assert tiny.post("/v1/tokenize", {"prompt": "hi"}).status_code == 200
    assert tiny.post("/messages", {"model": "tiny", **CHAT}).json()["type"] == "message"
    wrong = tiny.post("/messages", {"model": "other", **CHAT})
    assert wrong.status_code == 404
    assert wrong.json()["type"] == "error"


@pytest.mark.parametrize(
    "path", ["/models", "/v1/models", "/v1/models/", "//v1/models", "/v1/v1/models", "/api/v1/models"]
)
def test_the_list_of_models(tiny: Live, path: str) -> None:
    assert tiny.client.get(path).json()["object"] == "list"
    assert tiny.client.get(f"{path.rstrip('/')}/tiny/").json()["id"] == "tiny"


@pytest.mark.parametrize(
    "path",
    ["/", "/health", "/ready", "/metrics", "/v1/models", "/v1/models/tiny", "/openapi.json", "/version", "/nothing"],
)
def test_head_is_get_without_a_body(tiny: Live, path: str) -> None:
    whole = tiny.client.get(path, headers={"Accept-Encoding": "identity"})
    answer = tiny.client.head(path, headers={"Accept-Encoding": "identity"})
    assert answer.status_code == whole.status_code
    assert answer.content == b""
    assert answer.headers["content-type"] == whole.headers["content-type"]
    assert int(answer.headers["content-length"]) > 0
    assert tiny.client.get("/health").status_code == 200  # the connection goes on


def test_options_tell_what_is_possible(tiny: Live) -> None:
    for path, methods in (("/v1/models", "GET, HEAD, OPTIONS"), ("/v1/chat/completions/", "OPTIONS, POST"),
                          ("/v1/responses/resp_1", "DELETE, GET, HEAD, OPTIONS")):  # fmt: skip
        answer = tiny.client.request("OPTIONS", path)
        assert answer.status_code == 200
        assert answer.headers["allow"] == methods
    assert tiny.client.request("OPTIONS", "/nothing").status_code == 404


def test_a_wrong_method_is_told_the_right_one(tiny: Live) -> None:
    answer = tiny.client.get("/v1/chat/completions")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "OPTIONS, POST"
    assert "use POST" in answer.json()["error"]["message"]
    assert tiny.client.head("/v1/chat/completions").status_code == 405


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/chat/completion", "did you mean /v1/chat/completions?"),
        ("/v2/nothing-like-it", "the API is at /v1"),
        ("/api/chat", "use the base address /v1"),
        ("/v1", "the API is at /v1"),
    ],
)
def test_a_wrong_path_is_told_where_to_go(tiny: Live, path: str, hint: str) -> None:
    answer = tiny.post(path, {})
    assert answer.status_code == 404
    assert hint in answer.json()["error"]["message"]
