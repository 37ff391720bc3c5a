"""Prompts that are too long are refused at once, by every route, in words that clients know."""

import pytest

from deepseek.tokenizer import slices
from live_server import Live

LONG = "word " * 500_000
MESSAGES = [{"role": "user", "content": LONG}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/v1/completions", {"prompt": LONG}),
        ("/v1/messages", {"model": "tiny", "max_tokens": 5, "messages": MESSAGES}),
        ("/v1/responses", {"input": LONG}),
        ("/v1/embeddings", {"input": LONG}),
        ("/v1/rerank", {"query": "which", "documents": [LONG]}),
        ("/v1/score", {"text_1": "which", "text_2": LONG}),
    ],
)
def test_a_prompt_far_too_long_is_not_encoded(
    tiny: Live, path: str, body: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    real = slices.ids_of
    monkeypatch.setattr(
        slices, "ids_of", lambda backend, text, **more: encoded.append(len(text)) or real(backend, text)
    )
    answer = tiny.post(path, body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert "the prompt is too long: at least " in error["message"]
    assert "maximum context length is 2048 tokens" in error["message"]
    assert "the model takes no more" in error["message"]
    if path != "/v1/messages":
        assert error["code"] == "context_length_exceeded"
    assert sum(encoded) < 100_000


def test_counting_has_no_limit(tiny: Live) -> None:
    assert tiny.post("/tokenize", {"prompt": LONG}).json()["count"] == len(LONG)
    counted = tiny.post("/v1/messages/count_tokens", {"model": "tiny", "messages": MESSAGES}).json()["input_tokens"]
    assert counted > len(LONG)
