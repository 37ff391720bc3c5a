"""Prompts that are too long are refused at once, by every route, in words that clients know."""

import asyncio
import json
import threading
import types
from typing import Any

import pytest
from pydantic import ValidationError

from deepseek.server import long_bodies
from deepseek.server.protocol.completions import CompletionRequest
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


def test_a_long_body_is_validated_off_the_event_loop(tiny: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[str] = set()
    real = CompletionRequest.adapt.__func__  # type: ignore[attr-defined]

    def adapt(cls: type, values: dict[str, Any], notes: Any) -> None:
        threads.add(threading.current_thread().name)
        real(cls, values, notes)

    monkeypatch.setattr(CompletionRequest, "adapt", classmethod(adapt))
    body = {"prompt": "a", "max_tokens": 1, "user": "x" * 70_000, "n_probs": 1, "spare": 1}
    answer = tiny.post("/v1/completions", body)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["logprobs"]["tokens"]
    assert answer.headers["x-ignored-fields"] == "user, spare"
    assert [name.rpartition("_")[0] for name in threads] == ["deepseek-bodies"]


def test_what_is_wrong_with_a_long_body_is_told_as_of_a_short_one(tiny: Live) -> None:
    for body in ({"prompt": "a", "n": "x"}, {"prompt": [1, -1]}, {"max_tokens": 1}, {"prompt": "a", "min_p": 3}):
        short, long = (tiny.post("/v1/completions", {**body, "user": "x" * size}) for size in (1, 70_000))
        assert short.status_code == long.status_code == 400
        assert short.json() == long.json()


@pytest.mark.parametrize("item", ["1.5", '"a"', "[1]", "-1"])
def test_a_long_list_of_what_are_no_tokens_has_one_error(item: str) -> None:
    items = json.loads(f"[1, {', '.join([item] * 1000)}]")
    with pytest.raises(ValidationError) as caught:
        CompletionRequest(prompt=items)
    assert caught.value.error_count() < 10


@pytest.mark.parametrize("is_answering", [False, True])
def test_the_reader_of_long_bodies_rests_while_answers_are_on_their_way(
    is_answering: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    clock = types.SimpleNamespace(now=100.0, worked=0.0)
    monkeypatch.setattr(long_bodies, "time", types.SimpleNamespace(
        monotonic=lambda: clock.now, thread_time=lambda: clock.worked, sleep=rests.append,
    ))  # fmt: skip
    bodies = long_bodies.LongBodies(lambda: is_answering)

    def work() -> str:
        clock.worked += 0.1
        return "read"

    async def two() -> list[str]:
        return [await bodies.read(work), await bodies.read(work)]

    assert asyncio.run(two()) == ["read", "read"]
    bodies.close()
    assert rests == pytest.approx([0.1 * long_bodies.RESTS] if is_answering else [])
