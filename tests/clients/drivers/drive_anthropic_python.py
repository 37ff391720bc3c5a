"""The official Python package `anthropic`: messages, stream, tools and the tool runner, structured output, counting."""

from typing import Any

import anthropic
from anthropic import beta_tool
from checks import API_KEY, BASE_URL, MODEL, check
from pydantic import BaseModel

client = anthropic.Anthropic(base_url=BASE_URL, api_key=API_KEY, max_retries=0)
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
QUESTION = {"role": "user", "content": "What is the weather in Paris? Use the tool."}


class Person(BaseModel):
    name: str
    age: int


@check
def models() -> None:
    assert MODEL in [model.id for model in client.models.list()]


@check
def count_tokens() -> None:
    assert client.messages.count_tokens(model=MODEL, messages=[QUESTION], tools=[WEATHER]).input_tokens > 10


@check
def messages_with_history() -> None:
    turns: list[Any] = [{"role": "user", "content": "My name is Bob."}]
    answer = client.messages.create(model=MODEL, system="Be brief.", messages=turns, max_tokens=20)
    turns += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": "What is my name?"}]
    assert client.messages.create(model=MODEL, messages=turns, max_tokens=20).content[0].text
    assert answer._request_id


@check
def stream() -> None:
    asked = [{"role": "user", "content": "Count to five."}]
    with client.messages.stream(model=MODEL, messages=asked, max_tokens=20) as events:
        assert "".join(events.text_stream)
        assert events.get_final_message().usage.output_tokens


@check
def forced_tool_and_its_result() -> None:
    turns: list[Any] = [QUESTION]
    choice = {"type": "tool", "name": "get_weather"}
    answer = client.messages.create(model=MODEL, messages=turns, tools=[WEATHER], tool_choice=choice, max_tokens=60)
    call = next(block for block in answer.content if block.type == "tool_use")
    assert isinstance(call.input["city"], str)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "Sunny."}]}
    turns += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    assert client.messages.create(model=MODEL, messages=turns, tools=[WEATHER], max_tokens=40).stop_reason


@check
def tool_runner() -> None:
    @beta_tool
    def get_weather(city: str) -> str:
        """The weather in a city.

        Args:
            city: its name
        """
        return f"It is sunny in {city}."

    runner = client.beta.messages.tool_runner(
        model=MODEL, messages=[QUESTION], tools=[get_weather], max_tokens=60, max_iterations=3
    )
    assert runner.until_done().content


@check
def parse() -> None:
    asked = [{"role": "user", "content": "Bob is 30 years old. Who is it?"}]
    answer = client.messages.parse(model=MODEL, messages=asked, output_format=Person, max_tokens=60)
    assert answer.parsed_output is not None


@check
def prompt_caching_and_thinking() -> None:
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    asked = [{"role": "user", "content": "Hello!"}]
    thinking = {"type": "enabled", "budget_tokens": 1024}
    answer = client.messages.create(
        model=MODEL, system=system, messages=asked, thinking=thinking, max_tokens=1100, stop_sequences=["."]
    )
    assert answer.content
