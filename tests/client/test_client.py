"""Both clients against a scripted server: what they send, what they make of answers, faults and streams."""

import asyncio
import json
import math
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import deepseek
import deepseek_api
from deepseek.client import (
    Answer,
    AsyncClient,
    Client,
    ClientError,
    Event,
    NotAuthorized,
    RequestRefused,
    ServerBusy,
    ServerFault,
    ServerUnreachable,
)
from deepseek.errors import ConfigError, DeepseekError
from scripted_server import Reply, chat_reply, delta, echoed, serving, stream_reply

Ask = Callable[..., Any]
MESSAGES = [{"role": "user", "content": "Hi"}]


def ask_waiting(url: str, method: str, *arguments: Any, settings: dict[str, Any] | None = None, **fields: Any) -> Any:
    """Call a method of the client; a stream's events come as a list."""
    with Client(url, **(settings or {})) as client:
        result = getattr(client, method)(*arguments, **fields)
        return list(result) if method.startswith("stream") else result


def ask_asyncio(url: str, method: str, *arguments: Any, settings: dict[str, Any] | None = None, **fields: Any) -> Any:
    async def ask() -> Any:
        given = dict(settings or {})
        if sleep := given.pop("sleep", None):

            async def noted(seconds: float) -> None:
                sleep(seconds)

            given["sleep"] = noted
        async with AsyncClient(url, **given) as client:
            result = getattr(client, method)(*arguments, **fields)
            return [event async for event in result] if method.startswith("stream") else await result

    return asyncio.run(ask())


@pytest.fixture(params=[ask_waiting, ask_asyncio], ids=["waiting", "asyncio"])
def ask(request: pytest.FixtureRequest) -> Ask:
    return request.param


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("DEEPSEEK_BASE_URL", raising=False)
    monkeypatch.delenv("DEEPSEEK_API_KEY", raising=False)
    monkeypatch.setattr(deepseek_api, "_client", None)
    yield
    if deepseek_api._client is not None:
        deepseek_api._client.close()


def test_a_text_is_what_the_user_says(ask: Ask) -> None:
    with serving(chat_reply(content="Hello.", reasoning_content="They greet.")) as (url, asked):
        answer = ask(url + "/v1/", "chat", "Hi", settings={"api_key": "secret", "model": "small"}, temperature=0)
    assert answer == "Hello."
    assert (answer.reasoning, answer.finish_reason, answer.tool_calls) == ("They greet.", "stop", ())
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.cached_tokens) == (5, 2, 4)
    assert answer.raw["id"] == "chatcmpl-1"
    (request,) = asked
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer secret"
    assert request.body == {"model": "small", "messages": MESSAGES, "temperature": 0}


def test_tool_calls_and_missing_content(ask: Ask) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    with serving(chat_reply(content=None, tool_calls=[call])) as (url, asked):
        answer = ask(url, "chat", MESSAGES)
    assert answer == ""
    assert [(call.id, call.name, json.loads(call.arguments)) for call in answer.tool_calls] == [
        ("call_1", "f", {"a": 1})
    ]
    assert "authorization" not in asked[0].headers
    assert "model" not in asked[0].body


def test_generate_and_its_further_answers(ask: Ask) -> None:
    choices = [{"index": place, "text": text, "finish_reason": "length"} for place, text in enumerate(["a", "b"])]
    with serving(Reply({"choices": choices})) as (url, asked):
        answer = ask(url, "generate", prompt="Once", n=2)
    assert (answer, answer.others, answer.finish_reason) == ("a", ("b",), "length")
    assert asked[0].path == "/v1/completions"
    assert asked[0].body == {"prompt": "Once", "n": 2}


def test_embed_one_and_many(ask: Ask) -> None:
    rows = [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1.5, 2]}]
    with serving(Reply({"data": rows}), Reply({"data": rows[1:]})) as (url, asked):
        assert ask(url, "embed", ["a", "b"]) == [[1.5, 2.0], [3.0, 4.0]]
        assert ask(url, "embed", "a") == [1.5, 2.0]
    assert [request.body["input"] for request in asked] == [["a", "b"], ["a"]]


def test_models(ask: Ask) -> None:
    with serving(Reply({"data": [{"id": "small"}, {"id": "large"}]})) as (url, asked):
        assert ask(url, "models") == ["small", "large"]
    assert (asked[0].method, asked[0].path) == ("GET", "/v1/models")


def test_classify_is_by_likelihood(ask: Ask) -> None:
    """Of the label's letters alone, and independent of the order in which the server answers."""
    likes = {"refund": -0.1, "refunds": -0.1, "order": -0.3}
    with serving(echoed(likes)) as (url, asked):
        label = ask(url, "classify", "I want my money back", labels=list(likes))
    assert label == "refund"
    sums = [math.exp(len(name) * value - 0.5) for name, value in likes.items()]
    assert label.scores == pytest.approx({name: each / sum(sums) for name, each in zip(likes, sums, strict=True)})
    assert asked[0].path == "/v1/completions"
    assert all(prompt.startswith(asked[0].body["prompt"][0].split("Label:")[0]) for prompt in asked[0].body["prompt"])


def test_classify_with_labels_of_the_client_and_an_instruction(ask: Ask) -> None:
    with serving(echoed({"x": -1.0, "y": -0.1})) as (url, asked):
        assert ask(url, "classify", "q", settings={"labels": ["x", "y"]}, instruction="Which one?") == "y"
    assert asked[0].body["prompt"][0] == "Which one?\nLabels: x, y\n\nText: q\nLabel: x\n"


def test_classify_without_labels_lets_the_model_name_the_intent(ask: Ask) -> None:
    text = Reply({"choices": [{"index": 0, "text": ' "退货申请"。\nMore.', "finish_reason": "stop"}]})
    with serving(text) as (url, asked):
        label = ask(url, "classify", "我想退货")
        ask(url, "classify", "我想退货", instruction="Name it.")
    assert (label, label.scores) == ("退货申请", {})
    assert asked[0].path == "/v1/completions"
    assert asked[0].body["prompt"].endswith("\n\nMessage: 我想退货\nIntent:")
    assert (asked[0].body["temperature"], asked[0].body["stop"]) == (0, ["\n"])
    assert asked[1].body["prompt"].startswith("Name it.\n")


def test_a_stream_comes_in_events_that_sum_up(ask: Ask) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    chunks = [
        delta(role="assistant", content=""),
        delta(reasoning_content="Hm"),
        delta(content="a\u2028b"),
        delta(tool_calls=[call]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
        delta(finish_reason="tool_calls"),
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    ]
    with serving(stream_reply(*chunks)) as (url, asked):
        events = ask(url, "stream_chat", "Hi", stream_options={"include_usage": True})
    assert asked[0].body["stream"] is True
    assert [event.text for event in events] == ["", "", "a\u2028b", "", "", "", ""]
    answer = Answer.of(events)
    assert (answer, answer.reasoning, answer.finish_reason) == ("a\u2028b", "Hm", "tool_calls")
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls] == [("call_1", "f", "{}")]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


def test_generated_text_streams(ask: Ask) -> None:
    chunks = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("a", "b")]
    with serving(stream_reply(*chunks)) as (url, asked):
        assert [event.text for event in ask(url, "stream_generate", "Once")] == ["a", "b"]
    assert asked[0].path == "/v1/completions"


def test_a_stream_is_left_early_and_closed() -> None:
    with serving(stream_reply(*[delta(content="a")] * 1000)) as (url, _), Client(url) as client:
        with client.stream_chat("Hi") as stream:
            assert next(stream) == Event(text="a", raw=delta(content="a"))
        with pytest.raises(StopIteration):
            next(stream)
        assert client.stream_chat("Hi").answer() == "a" * 1000


def test_an_asyncio_stream_is_left_early_and_closed() -> None:
    async def leave(url: str) -> None:
        async with AsyncClient(url) as client:
            async with client.stream_chat("Hi") as stream:
                assert (await anext(stream)).text == "a"
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            assert await client.stream_chat("Hi").answer() == "a" * 1000

    with serving(stream_reply(*[delta(content="a")] * 1000)) as (url, _):
        asyncio.run(leave(url))


ERROR = {"error": {"message": "temperature must be 0 or more", "type": "x", "param": "temperature", "code": "range"}}


def test_a_refusal_names_the_field(ask: Ask) -> None:
    with serving(Reply(ERROR, status=400)) as (url, asked), pytest.raises(RequestRefused) as caught:
        ask(url, "chat", "Hi", temperature=-1)
    assert str(caught.value) == "temperature must be 0 or more"
    assert (caught.value.status, caught.value.field, caught.value.code) == (400, "temperature", "range")
    assert isinstance(caught.value, DeepseekError)
    assert len(asked) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_its_own_error(ask: Ask, status: int) -> None:
    with serving(Reply({"error": "no"}, status=status)) as (url, _), pytest.raises(NotAuthorized, match=r"^no$"):
        ask(url, "stream_chat", "Hi")


@pytest.mark.parametrize("method", ["chat", "stream_chat"])
def test_a_busy_server_is_asked_again(ask: Ask, method: str) -> None:
    waited: list[float] = []
    good = stream_reply(delta(content="ok")) if method == "stream_chat" else chat_reply(content="ok")
    busy = Reply({"error": {"message": "queue full"}}, status=429, headers={"retry-after": "7"})
    with serving(busy, Reply(b"starting", status=503), good) as (url, asked):
        answer = ask(url, method, "Hi", settings={"sleep": waited.append})
    assert "ok" in str(answer)
    assert waited == [7.0, 1.0]
    assert len(asked) == 3


def test_a_server_that_stays_busy_says_so(ask: Ask) -> None:
    waited: list[float] = []
    busy = Reply({"error": {"message": "queue full"}}, status=429, headers={"retry-after": "1000000"})
    with serving(busy) as (url, asked), pytest.raises(ServerBusy, match="queue full") as caught:
        ask(url, "chat", "Hi", settings={"sleep": waited.append, "retries": 1})
    assert (waited, len(asked), caught.value.retry_after) == ([30.0], 2, 1e6)


def test_nobody_there(ask: Ask) -> None:
    waited: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ServerUnreachable, match="is `deepseek serve` running there"):
        ask(url, "chat", "Hi", settings={"sleep": waited.append})
    assert waited == [0.5, 1.0]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(b"<html>", status=502), ServerFault),
        (Reply({"error": {"message": "broken"}}, status=500), ServerFault),
        (Reply(b"not json"), ServerFault),
        (Reply(b"[" * 100_000), ServerFault),
        (Reply({"choices": []}), ServerFault),
        (Reply({"choices": [{"message": 3}]}), ServerFault),
        (Reply([1]), ServerFault),
        (chat_reply(content="cut").__class__(b'{"choices":', cut=True), ServerUnreachable),
    ],
)
def test_answers_that_are_none(ask: Ask, reply: Reply, kind: type[ClientError]) -> None:
    with serving(reply) as (url, asked), pytest.raises(kind):
        ask(url, "chat", "Hi")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (stream_reply(delta(content="a"), done=False), ServerFault),
        (stream_reply(delta(content="a"), {"error": {"message": "the engine stopped"}}), ServerFault),
        (stream_reply({"choices": [3]}), ServerFault),
        (stream_reply(delta(content="a"), done=False, cut=True), ServerUnreachable),
        (Reply(b"data: {\n\n"), ServerFault),
    ],
)
def test_streams_that_break(ask: Ask, reply: Reply, kind: type[ClientError]) -> None:
    with serving(reply) as (url, asked), pytest.raises(kind):
        ask(url, "stream_chat", "Hi")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("settings", "call", "message"),
    [
        ({"base_url": "localhost:8000"}, lambda client: None, "base_url must be like"),
        ({"api_key": "a\nb"}, lambda client: None, "api_key must be of printable ASCII"),
        ({"labels": ["a", "a"]}, lambda client: None, "labels must differ"),
        ({}, lambda client: client.classify("q", "abc"), "labels must be a list of texts"),
        ({}, lambda client: client.classify("q", ["a", " "]), "labels must be a list of texts"),
        ({}, lambda client: client.chat("Hi", stream=True), "call stream_chat"),
        ({}, lambda client: client.chat("Hi", temperature=math.nan), "cannot be written as JSON"),
    ],
)
def test_mistakes_are_told_before_anything_is_sent(
    settings: dict[str, Any], call: Callable[[Client], Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message), Client(**settings) as client:
        call(client)


def test_the_module_of_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the source document writes it: the label goes into a prompt, the answer is returned."""
    label, text = (
        Reply({"choices": [{"index": 0, "text": text, "finish_reason": "stop"}]}) for text in (" 退货", "好的。")
    )
    with serving(label, text, echoed({"a": -1.0, "b": -2.0})) as (url, asked):
        monkeypatch.setenv("DEEPSEEK_BASE_URL", url)
        monkeypatch.setenv("DEEPSEEK_API_KEY", "key")
        intent = deepseek_api.classify("我想退货")
        response = deepseek_api.generate(prompt=f"作为电商客服,针对{intent}的回复:")
        assert response == "好的。"
        assert asked[1].body["prompt"] == "作为电商客服,针对退货的回复:"
        assert asked[1].headers["authorization"] == "Bearer key"
        first = deepseek_api._client
        assert first is not None
        first.close()
        deepseek_api.configure(base_url=url, labels=["a", "b"])
        assert deepseek_api.classify("q") == "a"


def test_the_package_offers_the_clients_without_loading_them() -> None:
    assert deepseek.Client is Client
    assert deepseek.AsyncClient is AsyncClient
    script = "import deepseek, deepseek.client, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "httpx2" in loaded
    assert not {"numpy", "torch", "numba"} & set(loaded)
    script = "import deepseek, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "httpx2" not in loaded
