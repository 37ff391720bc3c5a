"""/v1/responses with the real model, driven by the unmodified OpenAI client."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import responses as typed
from pydantic import TypeAdapter

from deepseek.server.chat import Said
from deepseek.server.generation import Delta
from deepseek.server.parsing import Piece, ToolCallPiece
from deepseek.server.protocol import response_events as out
from deepseek.server.protocol.answers import encode
from deepseek.server.response_stream import ResponseStream
from live_server import Brake, Live, live, tiny_engine

QUESTION = "What is the capital of France?"
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(smollm2: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{smollm2.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    return client.responses.create(**{"model": "smollm2", "input": QUESTION, "temperature": 0, **fields})


def prompt_of(live: Live, messages: list[Any], **fields: Any) -> int:
    return int(live.post("/tokenize", {"messages": messages, **fields}).json()["count"])


def test_an_answer(client: openai.OpenAI) -> None:
    answer = ask(client, max_output_tokens=30, metadata={"a": "b"})
    assert answer.output_text == "The capital of France is Paris."
    assert (answer.status, answer.object, answer.error, answer.metadata) == ("completed", "response", None, {"a": "b"})
    assert [item.type for item in answer.output] == ["message"]
    usage = answer.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.output_tokens == 8


def test_an_answer_that_is_cut_off(client: openai.OpenAI) -> None:
    answer = ask(client, max_output_tokens=3)
    assert answer.status == answer.output[0].status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"


def test_a_stream_is_in_order_and_sums_up_to_the_whole_answer(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"temperature": 0.9, "max_output_tokens": 20, "extra_body": {"seed": 3}, "store": False}
    whole = ask(client, **fields)
    events = list(ask(client, **fields, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:-1] == ["output_text.done", "content_part.done", "output_item.done"]
    assert kinds[-1] == whole.status
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    told = events[-1].response
    assert told.output_text == whole.output_text
    assert told.usage.output_tokens == whole.usage.output_tokens
    assert events[0].response.output == []
    for event in events:  # as OpenAI's own types say, to the letter
        TypeAdapter(type(event)).validate_python(event.to_dict(), strict=True)


def test_the_clients_own_sum_of_a_stream(client: openai.OpenAI) -> None:
    with client.responses.stream(model="smollm2", input=QUESTION, temperature=0) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == "The capital of France is Paris."


def test_asyncio(smollm2: Live) -> None:
    async def talk() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=f"{smollm2.url}/v1", api_key="none") as client:
            fields: Any = {"model": "smollm2", "input": QUESTION, "temperature": 0}
            whole = await client.responses.create(**fields)
            parts = [
                event.delta
                async for event in await client.responses.create(**fields, stream=True)
                if event.type == "response.output_text.delta"
            ]
        return whole.output_text, "".join(parts)

    whole, streamed = asyncio.run(talk())
    assert whole == streamed == "The capital of France is Paris."


def test_a_conversation_goes_on_from_what_was_stored(client: openai.OpenAI, smollm2: Live) -> None:
    first = ask(client, instructions="Be brief.")
    second = ask(client, input="And of Spain?", previous_response_id=first.id, max_output_tokens=8)
    said: list[Any] = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "And of Spain?"},
    ]
    assert second.usage.input_tokens == prompt_of(smollm2, said)  # without the instructions
    assert second.previous_response_id == first.id
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    third = ask(client, input="Thanks.", previous_response_id=second.id, max_output_tokens=1)
    said += [{"role": "assistant", "content": second.output_text}, {"role": "user", "content": "Thanks."}]
    assert third.usage.input_tokens == prompt_of(smollm2, said)


def test_what_was_stored_is_told_again(client: openai.OpenAI) -> None:
    answer = ask(client)
    assert client.responses.retrieve(answer.id) == answer
    *_, last = ask(client, stream=True)
    assert client.responses.retrieve(last.response.id).to_dict() == last.response.to_dict()


def test_what_was_not_stored_is_not_there(client: openai.OpenAI) -> None:
    answer = ask(client, store=False)
    with pytest.raises(openai.NotFoundError, match="it was not stored"):
        client.responses.retrieve(answer.id)
    with pytest.raises(openai.NotFoundError, match="it was not stored"):
        client.responses.delete(answer.id)
    with pytest.raises(openai.BadRequestError, match="send its items in input") as refused:
        ask(client, previous_response_id=answer.id)
    assert refused.value.code == "previous_response_not_found"


def test_items_make_the_same_prompt_as_chat_messages(client: openai.OpenAI, smollm2: Live) -> None:
    items: Any = [
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather in Rome?"}]},
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "A tool."}]},
        {"type": "message", "id": "m", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "Let me look.", "annotations": []}]},
        {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"city":"Rome"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "21 degrees"},
    ]  # fmt: skip
    told = ask(client, input=items, tools=[WEATHER], max_output_tokens=1)
    function = {"name": "get_weather", "arguments": '{"city":"Rome"}'}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Rome?"},
        {"role": "assistant", "content": "Let me look.", "reasoning_content": "A tool.",
         "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "c1", "content": "21 degrees"},
    ]  # fmt: skip
    declared = {key: WEATHER[key] for key in ("name", "description", "parameters")}
    tools = [{"type": "function", "function": declared}]
    assert told.usage.input_tokens == prompt_of(smollm2, messages, tools=tools)


def test_a_function_is_called_and_answered(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}}
    answer = ask(client, **fields)
    (call,) = answer.output
    assert (call.type, call.name, call.status) == ("function_call", "get_weather", "completed")
    assert json.loads(call.arguments)["unit"] in ("celsius", "fahrenheit")
    events = list(ask(client, **fields, stream=True))
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == call.arguments
    kinds = [event.type for event in events]
    assert kinds[-3:] == [
        "response.function_call_arguments.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees"}]
    told = ask(client, input=result, previous_response_id=answer.id, tools=[WEATHER], max_output_tokens=5)
    assert told.output_text


def test_an_answer_under_a_schema(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 9}}, "required": ["city"]}
    form: Any = {"format": {"type": "json_schema", "name": "city", "schema": schema, "strict": True}}
    answer = ask(client, text=form)
    assert json.loads(answer.output_text) == {"city": "Paris"}
    assert answer.text.format.schema_ == schema


def test_log_probabilities_of_the_text(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    logprobs = ask(client, **fields).output[0].content[0].logprobs
    assert "".join(one.token for one in logprobs) == "The capital of France is Paris."
    assert all(len(one.top_logprobs) == 2 for one in logprobs)
    deltas = [event for event in ask(client, **fields, stream=True) if event.type == "response.output_text.delta"]
    assert [one.token for delta in deltas for one in delta.logprobs] == [one.token for one in logprobs]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"conversation": "c"}, "conversation is not supported: use previous_response_id"),
        ({"prompt": {"id": "p"}}, "prompt is not supported"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice needs tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "web_search"}}, "tool_choice names a tool of type 'web_search'"),
        ({"tool_choice": "required"}, "tool_choice needs tools"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
         r"input\.0\.content\.0\.type is 'input_image'"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input names the item 'x', which was not stored"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "must have the field call_id"),
        ({"input": None}, "input must be given"),
    ],
)  # fmt: skip
def test_refusals(client: openai.OpenAI, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said):
        ask(client, extra_body=fields)


def test_query_fields_are_refused_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="'stream' is not supported here"):
        client.responses.retrieve(ask(client).id, stream=True)


def test_reasoning_is_an_item_of_its_own_and_goes_on_into_the_next_prompt(tiny: Live) -> None:
    with openai.OpenAI(base_url=f"{tiny.url}/v1", api_key="none", max_retries=0) as client:
        more: dict[str, Any] = {
            "model": "tiny", "input": "Hm", "max_output_tokens": 30,
            "extra_body": {"seed": 1, "thinking_budget": 8, "chat_template_kwargs": {"enable_thinking": True}},
        }  # fmt: skip
        whole = client.responses.create(**more)
        assert whole.output[0].type == "reasoning"
        assert whole.output[0].content
        assert whole.output[0].content[0].text
        assert [item.type for item in whole.output[1:]] in ([], ["message"])
        assert whole.usage
        assert 0 < whole.usage.output_tokens_details.reasoning_tokens <= whole.usage.output_tokens
        events = list(client.responses.create(**more, stream=True))
        kinds = [event.type.removeprefix("response.") for event in events]
        assert kinds[2:5] == ["output_item.added", "content_part.added", "reasoning_text.delta"]
        first = kinds.index("reasoning_text.done")
        assert kinds[first : first + 3] == ["reasoning_text.done", "content_part.done", "output_item.done"]
        told = events[-1].response.output  # type: ignore[union-attr]
        assert [item.type for item in told] == [item.type for item in whole.output]
        assert told[0].content == whole.output[0].content
        more["include"] = ["message.output_text.logprobs"]
        for item in client.responses.create(**more).output:
            if item.type == "message":
                (part,) = item.content
                said = b"".join(bytes(one.bytes) for one in part.logprobs)  # type: ignore[union-attr]
                assert said.decode("utf-8", "replace") == part.text  # type: ignore[union-attr]
        next_one = client.responses.create(
            model="tiny", input="And?", previous_response_id=whole.id, max_output_tokens=1
        )  # fmt: skip
        assert next_one.usage
        assert next_one.usage.input_tokens > whole.usage.input_tokens


def test_each_key_sees_its_own(tiny_folder: Path) -> None:
    with live(tiny_engine(tiny_folder), api_key=("one", "two")) as server:
        body: Any = {"model": "tiny", "input": "a", "max_output_tokens": 1}
        with (
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="one", max_retries=0) as owner,
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="two", max_retries=0) as other,
        ):
            response = owner.responses.create(**body)
            for attempt in (other.responses.retrieve, other.responses.delete):
                with pytest.raises(openai.NotFoundError):
                    attempt(response.id)
            with pytest.raises(openai.BadRequestError):
                other.responses.create(**body, previous_response_id=response.id)
            assert owner.responses.retrieve(response.id).id == response.id


def test_a_file_outlives_the_server(tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "responses.sqlite"
    with live(tiny_engine(tiny_folder), response_store=str(file)) as server:
        told = server.post("/v1/responses", {"input": "a", "max_output_tokens": 1}).json()
    assert file.stat().st_mode & 0o777 == 0o600
    with live(tiny_engine(tiny_folder), response_store=str(file)) as server:
        assert server.client.get(f"/v1/responses/{told['id']}").json() == told


def test_a_stream_that_breaks_says_so(tiny_folder: Path) -> None:
    engine = tiny_engine(tiny_folder)
    brake = Brake(engine)
    with live(engine) as server:
        body = {"input": "a", "max_output_tokens": 500, "stream": True}
        brake.pull()
        with server.client.stream("POST", "/v1/responses", json=body) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "event: response.created"
            server.service.end_answers()
            brake.release()
            data = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    last = data[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["message"] == "the server ended this answer: it is shutting down"
    assert typed.ResponseFailedEvent.model_validate(last).response.status == "failed"


def test_items_follow_the_order_of_what_was_said_however_it_is_cut_into_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deepseek.server.response_stream.secrets.token_hex", lambda size: "0")
    pieces = [
        Piece(reasoning="Hm"),
        Piece(content="Look"),
        Piece(content=": "),
        Piece(tool_call=ToolCallPiece(0, "c0", "f", '{"a":')),
        Piece(tool_call=ToolCallPiece(0, None, None, "1}")),
        Piece(tool_call=ToolCallPiece(1, "c1", "g", "")),
        Piece(content="Bye"),
    ]
    usage = out.ResponseUsage(1, 1, 2, out.InputDetails(0), out.OutputDetails(0))

    def told(steps: list[list[Piece]]) -> list[Any]:
        stream = ResponseStream(response())
        sent = [json.loads(encode(event)) for event in stream.start()]
        for step in steps:
            sent += [json.loads(encode(event)) for event in stream.add(Said(Delta(0), pieces=step))]
        events = stream.end("stop", usage) + stream.finished()
        return sent + [json.loads(encode(event)) for event in events]

    singly, together = told([[piece] for piece in pieces]), told([pieces])
    singly[-1]["response"]["completed_at"] = together[-1]["response"]["completed_at"] = 0
    assert together == singly
    output = singly[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call", "function_call", "message"]
    assert [item.get("arguments") for item in output[2:4]] == ['{"a":1}', ""]
    added = [event["item"] for event in singly if event["type"] == "response.output_item.added"]
    assert [item.get("content", []) for item in added] == [[]] * 5
    done = [event["item"] for event in singly if event["type"] == "response.output_item.done"]
    assert done == output


def response() -> out.ResponseAnswer:
    return out.ResponseAnswer(
        id="r", created_at=0, model="tiny", instructions=None, max_output_tokens=None, metadata={},
        parallel_tool_calls=True, previous_response_id=None, reasoning={}, store=False, temperature=1.0, text={},
        tool_choice="auto", tools=[], top_logprobs=0, top_p=1.0, user=None,
    )  # fmt: skip


def test_a_least_length_is_kept(tiny: Live) -> None:
    for fields in ({"ignore_eos": True}, {"min_tokens": 9}):
        body = {"model": "tiny", "input": "hi", "max_output_tokens": 9, "seed": 1, "store": False, **fields}
        answer = tiny.post("/v1/responses", body).json()
        assert answer["usage"]["output_tokens"] == 9
        assert answer["status"] == "incomplete"
