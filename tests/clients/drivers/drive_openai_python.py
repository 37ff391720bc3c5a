"""The official Python package `openai`: chat, tools, structured output, responses, embeddings."""

import json
from typing import Any

import openai
from checks import API_KEY, API_URL, MODEL, check
from pydantic import BaseModel

client = openai.OpenAI(base_url=API_URL, api_key=API_KEY, max_retries=0)
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
QUESTION = "What is the weather in Paris? Use the tool."


class Person(BaseModel):
    name: str
    age: int


@check
def models() -> None:
    assert MODEL in [model.id for model in client.models.list()]


@check
def chat_with_history() -> None:
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "My name is Bob."}]
    answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=20)
    messages += [answer.choices[0].message, {"role": "user", "content": "What is my name?"}]
    again = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=20)
    assert again.choices[0].message.content


@check
def stream() -> None:
    asked = [{"role": "user", "content": "Count to five."}]
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=asked, stream=True, stream_options=options, max_completion_tokens=20
        )
    )
    assert any(chunk.choices and chunk.choices[0].delta.content for chunk in chunks)
    assert chunks[-1].usage


@check
def stream_helper() -> None:
    asked = [{"role": "user", "content": "Count to five."}]
    with client.chat.completions.stream(model=MODEL, messages=asked, max_tokens=200) as events:
        kinds = [event.type for event in events]
        assert "content.delta" in kinds
        assert events.get_final_completion().choices[0].message.content


@check
def forced_tool_and_its_result() -> None:
    tools: list[Any] = [{"type": "function", "function": WEATHER}]
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    choice = {"type": "function", "function": {"name": "get_weather"}}
    answer = client.chat.completions.create(
        model=MODEL, messages=messages, tools=tools, tool_choice=choice, max_tokens=60
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert isinstance(json.loads(call.function.arguments)["city"], str)
    messages += [answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 20 degrees."}]
    assert client.chat.completions.create(model=MODEL, messages=messages, tools=tools, max_tokens=40).choices


@check
def tools_of_its_choice() -> None:
    tools: list[Any] = [{"type": "function", "function": {**WEATHER, "strict": True}}]
    asked = [{"role": "user", "content": QUESTION}]
    answer = client.chat.completions.create(
        model=MODEL, messages=asked, tools=tools, parallel_tool_calls=False, max_tokens=60
    )
    assert answer.choices[0].finish_reason in ("tool_calls", "stop", "length")


@check
def parse() -> None:
    asked = [{"role": "user", "content": "Bob is 30 years old. Who is it?"}]
    answer = client.chat.completions.parse(model=MODEL, messages=asked, response_format=Person, max_tokens=60)
    assert answer.choices[0].message.parsed is not None


@check
def json_object() -> None:
    asked = [{"role": "user", "content": "Bob is 30 years old. Answer with a JSON object with keys name and age."}]
    kind = {"type": "json_object"}
    answer = client.chat.completions.create(model=MODEL, messages=asked, response_format=kind, max_tokens=80)
    assert json.loads(answer.choices[0].message.content or "")


@check
def completions() -> None:
    assert client.completions.create(model=MODEL, prompt="def add(a, b):", max_tokens=10).choices[0].text


@check
def embeddings() -> None:
    vectors = client.embeddings.create(model=MODEL, input=["a cat", "a dog"]).data
    assert len(vectors) == 2
    assert len(vectors[0].embedding) > 8


@check
def responses_with_history() -> None:
    first = client.responses.create(model=MODEL, instructions="Be brief.", input="Hello!", max_output_tokens=20)
    assert first.output_text
    asked = [{"role": "user", "content": text} for text in ("Hello!", "Who are you?")]
    history: list[Any] = [asked[0], *first.output, asked[1]]
    assert client.responses.create(model=MODEL, input=history, max_output_tokens=20).output_text
    linked = client.responses.create(
        model=MODEL, input="Say that again.", previous_response_id=first.id, max_output_tokens=20
    )
    assert linked.output_text


@check
def responses_stream() -> None:
    with client.responses.stream(model=MODEL, input="Count to five.", max_output_tokens=20) as events:
        assert any(event.type == "response.output_text.delta" for event in events)
        assert events.get_final_response().output_text


@check
def responses_parse() -> None:
    answer = client.responses.parse(
        model=MODEL, input="Bob is 30 years old. Who is it?", text_format=Person, max_output_tokens=60
    )
    assert answer.output_parsed is not None


@check
def responses_tool() -> None:
    tools: list[Any] = [{"type": "function", "strict": False, **WEATHER}]
    choice = {"type": "function", "name": "get_weather"}
    asked: list[Any] = [{"role": "user", "content": QUESTION}]
    answer = client.responses.create(model=MODEL, input=asked, tools=tools, tool_choice=choice, max_output_tokens=60)
    call = next(item for item in answer.output if item.type == "function_call")
    asked += [*answer.output, {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}]
    assert client.responses.create(model=MODEL, input=asked, tools=tools, max_output_tokens=40).output
