"""What the server wrote it can read: every answer, whole, streamed or cut off anywhere, can be sent back as history."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import msgspec
import openai
import pytest

from deepseek.server.anthropic_messages import chat_messages as anthropic_chat
from deepseek.server.chat import Said
from deepseek.server.chat_messages import for_template
from deepseek.server.generation import Delta
from deepseek.server.message_stream import MessageStream
from deepseek.server.parsing import Piece, make_parser
from deepseek.server.protocol import message_events
from deepseek.server.protocol.chat import ChatCompletionRequest
from deepseek.server.protocol.messages import MessagesRequest
from deepseek.server.protocol.responses import ResponsesRequest
from deepseek.server.response_items import chat_messages as response_chat
from deepseek.server.response_stream import ResponseStream
from deepseek.tokenizer.chat_template import render
from live_server import Live
from recorded_outputs import RECORDED, Recorded
from test_chat_messages import TEMPLATES

SCHEMA: dict[str, Any] = {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 6}, "days": {"enum": [1, 20]}},
    "required": ["city", "days"], "additionalProperties": False,
}  # fmt: skip
CHAT_TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
USER: list[Any] = [{"role": "user", "content": "go"}]
THINK: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": True}, "thinking_budget": 3}
LENGTHS = (1, 3, 6, 9, 14, 22, 60)
KINDS: dict[str, dict[str, Any]] = {
    "text": {},
    "required": {"tools": [CHAT_TOOL], "tool_choice": "required"},
    "named": {"tools": [CHAT_TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
    "reasoning": {"tools": [CHAT_TOOL], "tool_choice": "required", **THINK},
}


@pytest.fixture(scope="module")
def client(tiny: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{tiny.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def claude(tiny: Live) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=tiny.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_chat(client: openai.OpenAI, tiny: Live, kind: str, length: int) -> None:
    extra = {"seed": 3, "max_tokens": length, **KINDS[kind]}
    whole = client.chat.completions.create(model="tiny", messages=USER, extra_body=extra).choices[0].message
    raw = tiny.post("/v1/chat/completions", {"messages": USER, **extra}).json()["choices"][0]["message"]
    streamed = _accumulated(client.chat.completions.create(model="tiny", messages=USER, stream=True, extra_body=extra))
    assert (whole.content or "") == streamed["content"]
    for message in (whole.model_dump(), whole.to_dict(), raw, streamed):
        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in message.get("tool_calls") or ()
        ]
        history = [*USER, message, *results, *USER]
        assert tiny.post("/v1/chat/completions", {"messages": history, "max_tokens": 1}).status_code == 200, message


def _accumulated(stream: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": []}
    for chunk in stream:
        delta = chunk.choices[0].delta
        message["content"] += delta.content or ""
        for call in delta.tool_calls or ():
            if call.id:
                message["tool_calls"].append(
                    {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": ""}}
                )
            message["tool_calls"][call.index]["function"]["arguments"] += call.function.arguments or ""
    return message


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_responses(client: openai.OpenAI, kind: str, length: int) -> None:
    fields = KINDS[kind]
    extra: dict[str, Any] = {"seed": 3, **{name: value for name, value in fields.items() if name in THINK}}
    if "tools" in fields:
        choice = "required" if fields["tool_choice"] == "required" else {"type": "function", "name": "f"}
        extra |= {"tools": [{"type": "function", "name": "f", "parameters": SCHEMA}], "tool_choice": choice}
    more: dict[str, Any] = {"model": "tiny", "input": "go", "max_output_tokens": length, "extra_body": extra}
    whole = client.responses.create(**more)
    *_, last = client.responses.create(**more, stream=True)
    for output in (whole.output, last.response.output):  # type: ignore[union-attr]
        calls = [item.call_id for item in output if item.type == "function_call"]
        results = [{"type": "function_call_output", "call_id": call, "output": "ok"} for call in calls]
        for dump in ("model_dump", "to_dict"):
            items = [getattr(item, dump)() for item in output]
            client.responses.create(
                model="tiny", input=[{"role": "user", "content": "go"}, *items, *results], max_output_tokens=1
            )
    client.responses.create(
        model="tiny", input=[{"role": "user", "content": "on"}], previous_response_id=whole.id, max_output_tokens=1
    )
    if whole.output and whole.output[0].id is not None:
        reference: Any = {"type": "item_reference", "id": whole.output[0].id}
        client.responses.create(model="tiny", input=[reference], max_output_tokens=1)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_messages(claude: anthropic.Anthropic, kind: str, length: int) -> None:
    more: dict[str, Any] = {"model": "tiny", "max_tokens": length, "extra_body": {"seed": 3}}
    if "tools" in KINDS[kind]:
        more["tools"] = [{"name": "f", "input_schema": SCHEMA}]
        more["tool_choice"] = {"type": "tool", "name": "f"} if kind == "named" else {"type": "any"}
    if kind == "reasoning":
        more["thinking"] = {"type": "enabled", "budget_tokens": 3}
    whole = claude.messages.create(messages=USER, **more)
    with claude.messages.stream(messages=USER, **more) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        for blocks in (
            [block.model_dump() for block in message.content],
            [block.to_dict() for block in message.content],
        ):
            results = [
                {"type": "tool_result", "tool_use_id": block["id"], "content": "ok"}
                for block in blocks
                if block["type"] == "tool_use"
            ]
            turn: Any = {"role": "user", "content": [*results, {"type": "text", "text": "on"}]}
            history: Any = [*USER, {"role": "assistant", "content": blocks}, turn]
            claude.messages.create(model="tiny", max_tokens=1, messages=history)


def _said(recorded: Recorded, size: int) -> tuple[list[Said], list[Piece]]:
    """What comes of the first so many characters."""
    parser = make_parser(
        recorded.reasoning_parser, recorded.tool_parser, thinking_open=recorded.thinking_open,
        declared=recorded.declared,
    )  # fmt: skip
    pieces = [*parser.feed(recorded.text[:size]), *parser.finish()]
    delta = Delta(0, finish_reason="length")
    return [Said(delta, pieces=pieces, finish_reason="length")], pieces


def _chat_history(pieces: list[Piece]) -> list[dict[str, Any]]:
    message: dict[str, Any] = {"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": []}
    for piece in pieces:
        message["content"] += piece.content
        message["reasoning_content"] += piece.reasoning
        if (call := piece.tool_call) is not None:
            if call.name is not None:
                message["tool_calls"].append({"id": call.id, "function": {"name": call.name, "arguments": ""}})
            message["tool_calls"][call.index]["function"]["arguments"] += call.arguments
    body = ChatCompletionRequest.model_validate({"messages": [*USER, message, *USER]})
    return [one.model_dump(exclude_none=True) for one in body.messages]


def _messages_history(steps: list[Said]) -> list[dict[str, Any]]:
    stream = MessageStream(message_events.MessageAnswer("m", "tiny", message_events.MessageUsage(0, 0, 0), []))
    for said in steps:
        stream.add(said)
    stream.end("max_tokens", None, message_events.MessageUsage(0, 0, 0))
    content = msgspec.to_builtins(stream.message.content)
    history = [*USER, {"role": "assistant", "content": content}, *USER]
    return anthropic_chat(MessagesRequest.model_validate({"messages": history, "max_tokens": 1}))


def _response_history(steps: list[Said]) -> list[dict[str, Any]]:
    answer: Any = type("Answer", (), {"output": [], "status": "in_progress"})()
    stream = ResponseStream(answer)
    for said in steps:
        stream.add(said)
    stream.end("length", None)  # type: ignore[arg-type]
    output = json.loads(msgspec.json.encode(answer.output))
    body = ResponsesRequest.model_validate({"input": [*USER, *output, *USER]})
    return response_chat(None, body.items)


@pytest.mark.parametrize("name", RECORDED)
def test_what_models_wrote_cut_off_anywhere_is_shown_by_every_template(name: str) -> None:
    recorded = RECORDED[name]
    for size in sorted({*range(0, len(recorded.text), max(1, len(recorded.text) // 12)), len(recorded.text)}):
        steps, pieces = _said(recorded, size)
        for history in (_chat_history(pieces), _messages_history(steps), _response_history(steps)):
            for template in TEMPLATES.values():
                messages, tools = for_template(history, None, chat_template=template)
                render(template, messages, tools=tools, bos_token="<s>")


def test_arguments_that_were_cut_off_are_shown_as_far_as_they_came() -> None:
    for text, shown in (
        ('{"city": "Par', {"city": "Par"}),
        ('{"city": "Paris", "days": ', {"city": "Paris"}),
        ('{"city": "Paris", "da', {"city": "Paris"}),
        ("{", {}),
        ("", {}),
        ("null", {}),
        ("[1]", {"input": [1]}),
        ("Paris", {"input": "Paris"}),
        ("{'city': 'Paris'}", {"input": "{'city': 'Paris'}"}),
        ('{"a":' * 100_000, {"input": '{"a":' * 100_000}),
    ):
        history = [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": text}}]}]
        messages, _ = for_template(history, None)
        assert messages[0]["tool_calls"][0]["function"]["arguments"] == shown, text[:50]
