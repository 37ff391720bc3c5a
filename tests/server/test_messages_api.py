"""/v1/messages with the real model, driven by the unmodified Anthropic client."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from deepseek.server.chat import Said
from deepseek.server.generation import Delta
from deepseek.server.message_stream import MessageStream
from deepseek.server.parsing import Piece, ToolCallPiece
from deepseek.server.protocol import message_events as out
from live_server import Brake, Live, live, tiny_engine

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(smollm2: Live) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=smollm2.url, api_key="none", max_retries=0) as client:
        yield client


def fields(**more: Any) -> dict[str, Any]:
    """The client has no names for how to sample."""
    sampling = {"temperature": 0, **more.pop("extra_body", {})}
    return {"model": "smollm2", "max_tokens": 32, "messages": QUESTION, "extra_body": sampling, **more}


def dicts(blocks: Any) -> list[Any]:
    """Blocks without their types, which differ between the client's streams and whole answers."""
    return [block.to_dict() for block in blocks]


def ask(client: anthropic.Anthropic, **more: Any) -> Any:
    return client.messages.create(**fields(**more))


def test_an_answer(client: anthropic.Anthropic) -> None:
    message = ask(client)
    assert [(block.type, block.text) for block in message.content] == [("text", "The capital of France is Paris.")]
    assert (message.role, message.stop_reason, message.stop_sequence) == ("assistant", "end_turn", None)
    assert message.usage.output_tokens == 8
    total = message.usage.input_tokens + message.usage.cache_read_input_tokens
    assert total == client.messages.count_tokens(model="smollm2", messages=QUESTION).input_tokens


def test_a_stream_sums_up_to_the_whole_answer(client: anthropic.Anthropic) -> None:
    sampling = {"temperature": 0.8, "seed": 3}
    whole = ask(client, extra_body=sampling)
    with client.messages.stream(**fields(extra_body=sampling)) as stream:
        kinds = [event.type for event in stream]
        told = stream.get_final_message()
    assert dicts(told.content) == dicts(whole.content)
    assert (told.stop_reason, told.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    raw = [kind for kind in kinds if kind not in ("text", "ping")]
    assert raw[:2] == ["message_start", "content_block_start"]
    assert set(raw[2:-3]) == {"content_block_delta"}
    assert raw[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_asyncio(smollm2: Live) -> None:
    async def talk() -> tuple[str, str]:
        async with anthropic.AsyncAnthropic(base_url=smollm2.url, api_key="none") as client:
            message = await client.messages.create(**fields())
            async with client.messages.stream(**fields()) as stream:
                parts = [text async for text in stream.text_stream]
        return message.content[0].text, "".join(parts)

    whole, streamed = asyncio.run(talk())
    assert whole == streamed == "The capital of France is Paris."


def test_a_system_prompt_and_blocks_make_the_same_prompt_as_openais_messages(
    client: anthropic.Anthropic, smollm2: Live
) -> None:
    result = [{"type": "text", "text": "21 degrees"}]
    told: Any = [
        {"role": "user", "content": [{"type": "text", "text": "Weather in "}, {"type": "text", "text": "Rome?"}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "A tool helps.", "signature": "x"},
            {"type": "text", "text": "Let me look."},
            {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Rome"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": result, "is_error": True},
            {"type": "text", "text": "And?", "cache_control": {"type": "ephemeral"}},
        ]},
        {"role": "user", "content": "Tell me."},
    ]  # fmt: skip
    count = client.messages.count_tokens(model="smollm2", messages=told, system="Be brief.", tools=[WEATHER])
    function = {"name": "get_weather", "arguments": '{"city": "Rome"}'}
    same = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Rome?"},
        {"role": "assistant", "content": "Let me look.", "reasoning_content": "A tool helps.",
         "tool_calls": [{"id": "t1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "t1", "content": "Error: 21 degrees"},
        {"role": "user", "content": "And?\n\nTell me."},
    ]  # fmt: skip
    parameters = {key: WEATHER[key] for key in ("name", "description")} | {"parameters": WEATHER["input_schema"]}
    body = {"messages": same, "tools": [{"type": "function", "function": parameters}]}
    assert count.input_tokens == smollm2.post("/tokenize", body).json()["count"]


def test_the_last_message_goes_on(client: anthropic.Anthropic) -> None:
    message = ask(client, messages=[*QUESTION, {"role": "assistant", "content": "The capital of France"}])
    assert message.content[0].text == " is Paris."


def test_why_it_stopped(client: anthropic.Anthropic) -> None:
    stopped = ask(client, stop_sequences=["Berlin", " France"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " France")
    assert stopped.content[0].text == "The capital of"
    assert ask(client, max_tokens=3).stop_reason == "max_tokens"
    assert ask(client).stop_reason == "end_turn"


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "get_weather"}, {"type": "any"}])
def test_a_tool_is_called_as_in_the_stream(client: anthropic.Anthropic, choice: Any) -> None:
    more: dict[str, Any] = {"tools": [WEATHER], "tool_choice": choice, "max_tokens": 200}
    if choice["type"] == "any":
        more["tool_choice"] = {**choice, "disable_parallel_tool_use": True}
    whole = ask(client, **more)
    assert whole.stop_reason == "tool_use"
    (call,) = whole.content
    assert (call.type, call.name) == ("tool_use", "get_weather")
    assert call.input["unit"] in ("celsius", "fahrenheit")
    with client.messages.stream(**fields(**more)) as stream:
        parts = [event.partial_json for event in stream if event.type == "input_json"]
        told = stream.get_final_message()
    assert json.loads("".join(parts)) == call.input == told.content[0].input
    assert told.stop_reason == "tool_use"


def test_an_answer_under_a_schema(client: anthropic.Anthropic) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 9}}, "required": ["city"]}
    message = ask(client, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert json.loads(message.content[0].text) == {"city": "Paris"}


def test_a_repeated_prompt_is_read_from_the_cache(client: anthropic.Anthropic) -> None:
    messages = [{"role": "user", "content": "All that is known about pears and plums. " * 12}]
    first, second = (ask(client, messages=messages, max_tokens=1).usage for _ in range(2))
    assert first.cache_read_input_tokens == 0
    assert second.cache_read_input_tokens >= 64
    assert second.input_tokens + second.cache_read_input_tokens == first.input_tokens


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
     r"messages\.0\.content\.0\.type is 'image', which this model cannot read"),
    ({"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "base64", "data": "x"}}]}]},
     r"messages\.0\.content\.0\.type is 'document'"),
    ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": [
        {"type": "image", "source": {}}]}]}]}, r"messages\.0\.content\.0\.content\.0\.type is 'image'"),
    ({"messages": [{"role": "user", "content": [{"type": "new_kind", "text": "read me"}]}]}, r"content\.0\.type"),
    ({"tools": [{"type": "web_search_20250305", "name": "s"}], "tool_choice": {"type": "tool", "name": "s"}},
     "tool_choice needs tools"),
    ({"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]}]},
     "a message with role user cannot have a block of type tool_use"),
    ({"tool_choice": {"type": "any"}}, "tool_choice needs tools"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user", "content": []}]}, "a message with role user must have content"),
    ({"messages": [*QUESTION, {"role": "assistant", "content": [
        {"type": "tool_use", "id": "1", "name": "f", "input": {}}]}]}, "messages must not end with a tool_use block"),
    ({"max_tokens": None}, "max_tokens must be given"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "said"), REFUSALS)
def test_refusals_are_in_anthropics_envelope(client: anthropic.Anthropic, more: dict[str, Any], said: str) -> None:
    with pytest.raises(anthropic.BadRequestError, match=said) as refused:
        ask(client, extra_body=more)
    body: Any = refused.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"


def test_an_unknown_model(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="'claude' is not served here") as refused:
        ask(client, model="claude")
    assert refused.value.body["error"]["type"] == "not_found_error"  # type: ignore[index, call-overload]


def test_thinking_comes_in_a_block_of_its_own_and_within_its_budget(tiny: Live) -> None:
    with anthropic.Anthropic(base_url=tiny.url, api_key="none") as client:
        more: dict[str, Any] = {
            "model": "tiny", "max_tokens": 30, "messages": [{"role": "user", "content": "Hm"}],
            "thinking": {"type": "enabled", "budget_tokens": 8}, "extra_body": {"seed": 1},
        }  # fmt: skip
        whole = client.messages.create(**more)
        assert whole.content[0].type == "thinking"
        assert 0 < len(whole.content[0].thinking.encode()) <= 8 * 3  # a byte a token, told as three where it is none
        assert whole.content[0].signature
        assert [block.type for block in whole.content[1:]] in ([], ["text"])
        with client.messages.stream(**more) as stream:
            assert dicts(stream.get_final_message().content) == dicts(whole.content)
        more["thinking"]["display"] = "omitted"
        hidden = client.messages.create(**more).content
        assert hidden[0].thinking == ""  # type: ignore[union-attr]
        assert hidden[1:] == whole.content[1:]
        more["thinking"] = {"type": "disabled"}
        assert all(block.type == "text" for block in client.messages.create(**more).content)


def test_a_silent_stream_pings(tiny_folder: Path) -> None:
    engine = tiny_engine(tiny_folder)
    brake = Brake(engine)
    brake.pull()
    body = {"model": "tiny", "max_tokens": 2, "messages": [{"role": "user", "content": "a"}], "stream": True}
    with (
        live(engine, keep_alive_seconds=0.05) as server,
        server.client.stream("POST", "/v1/messages", json=body) as answer,
    ):
        kinds = []
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kinds.append(line.removeprefix("event: "))
            if kinds[-1:] == ["ping"]:
                brake.release()
    assert kinds[:2] == ["message_start", "ping"]
    assert kinds[-1] == "message_stop"


def test_a_key_may_come_in_either_header(tiny_folder: Path) -> None:
    with live(tiny_engine(tiny_folder), api_key=("secret",)) as server:
        body = {"model": "tiny", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}
        with anthropic.Anthropic(base_url=server.url, api_key="secret") as client:
            client.messages.create(**body)  # type: ignore[call-overload]
        with anthropic.Anthropic(base_url=server.url, auth_token="secret", api_key=None) as client:
            client.messages.create(**body)  # type: ignore[call-overload]
        with (
            anthropic.Anthropic(base_url=server.url, api_key="guess") as client,
            pytest.raises(anthropic.AuthenticationError) as refused,
        ):
            client.messages.create(**body)  # type: ignore[call-overload]
        assert refused.value.body["error"]["type"] == "authentication_error"  # type: ignore[index, call-overload]


def test_blocks_follow_the_order_of_what_was_said_however_it_is_cut_into_steps() -> None:
    pieces = [
        Piece(reasoning="Hm"),
        Piece(content="Look"),
        Piece(content=": "),
        Piece(tool_call=ToolCallPiece(0, "c0", "f", '{"a":')),
        Piece(tool_call=ToolCallPiece(0, None, None, "1}")),
        Piece(tool_call=ToolCallPiece(1, "c1", "g", "")),
        Piece(content="Bye"),
    ]
    delta = Delta(0)
    usage = out.MessageUsage(1, 1)

    def told(steps: list[list[Piece]]) -> tuple[list[str], out.MessageAnswer]:
        stream = MessageStream(out.MessageAnswer("m", "tiny", out.MessageUsage(1, 0), []))
        events = stream.start(usage)
        for step in steps:
            events += stream.add(Said(delta, pieces=step))
        events += stream.end("end_turn", None, usage)
        return [repr(event) for event in events], stream.message

    singly = told([[piece] for piece in pieces])
    assert told([pieces]) == singly
    thinking = out.ThinkingContent("Hm", singly[1].content[0].signature)  # type: ignore[union-attr]
    calls = [out.ToolUseContent("c0", "f", {"a": 1}), out.ToolUseContent("c1", "g", {})]
    assert singly[1].content == [thinking, out.TextContent("Look: "), *calls, out.TextContent("Bye")]
    starts = [event for event in singly[0] if event.startswith("BlockStart")]
    assert len(starts) == 5
    assert not any("Hm" in start or "Look" in start for start in starts)


def test_the_billing_line_of_claude_code_is_no_part_of_the_prompt(tiny: Live) -> None:
    """It differs from session to session and comes first: no prompt would share a prefix with another session's."""
    line = "x-anthropic-billing-header: cc_version=2.1.332.573; cc_entrypoint=cli; cch=71fea;"
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}

    def count(system: Any) -> int:
        return int(tiny.post("/v1/messages/count_tokens", {**asked, "system": system}).json()["input_tokens"])

    brief = {"type": "text", "text": "Be brief."}
    assert count([{"type": "text", "text": line}, brief]) == count(f"{line}\nBe brief.") == count([brief])
    alone = tiny.post("/v1/messages/count_tokens", {**asked, "system": line})
    assert alone.json() == tiny.post("/v1/messages/count_tokens", asked).json()
    assert alone.headers["x-ignored-fields"] == "system.x-anthropic-billing-header"
    assert count(f"Say {line}") > count("Say ")  # what somebody else says about it is said
