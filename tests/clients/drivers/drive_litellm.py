"""LiteLLM: the providers openai, hosted_vllm, text-completion-openai and anthropic; responses, embeddings."""

from typing import Any

import litellm
from checks import API_KEY, API_URL, BASE_URL, MODEL, check
from pydantic import BaseModel

PROVIDERS = {"openai": API_URL, "hosted_vllm": API_URL, "anthropic": BASE_URL}
HISTORY = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "My name is Bob."},
    {"role": "assistant", "content": "Hello Bob!"},
    {"role": "user", "content": "What is my name?"},
]
FUNCTION = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOLS = [{"type": "function", "function": FUNCTION}]


class Person(BaseModel):
    name: str
    age: int


def complete(provider: str, messages: list[Any], **options: Any) -> Any:
    options = {"api_base": PROVIDERS[provider], "api_key": API_KEY, "max_tokens": 60, "num_retries": 0, **options}
    return litellm.completion(f"{provider}/{MODEL}", messages=messages, **options)


@check
def chat_and_stream() -> None:
    for provider in PROVIDERS:
        assert complete(provider, HISTORY).choices[0].message.content
        chunks = list(complete(provider, HISTORY, stream=True, stream_options={"include_usage": True}))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@check
def tools() -> None:
    for provider in PROVIDERS:
        asked: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
        choice = {"type": "function", "function": {"name": "get_weather"}}
        message = complete(provider, asked, tools=TOOLS, tool_choice=choice).choices[0].message
        (call,) = message.tool_calls
        asked += [message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}]
        assert complete(provider, asked, tools=TOOLS).choices


@check
def structured_output() -> None:
    for provider in PROVIDERS:
        asked = [{"role": "user", "content": "Bob is 30 years old. Who is it?"}]
        Person.model_validate_json(complete(provider, asked, response_format=Person).choices[0].message.content)


@check
def responses() -> None:
    options = {"api_base": API_URL, "api_key": API_KEY, "max_output_tokens": 20}
    assert litellm.responses(model=f"openai/{MODEL}", input="Say hello.", **options).output
    assert list(litellm.responses(model=f"openai/{MODEL}", input="Say hello.", stream=True, **options))


@check
def text_completion() -> None:
    name = f"text-completion-openai/{MODEL}"
    options = {"api_base": API_URL, "api_key": API_KEY, "max_tokens": 20}
    answer = litellm.text_completion(model=name, prompt="def add(a, b):", **options)
    assert answer.choices[0].text


@check
def embeddings() -> None:
    made = litellm.embedding(f"openai/{MODEL}", input=["a cat", "a dog"], api_base=API_URL, api_key=API_KEY)
    assert len(made.data) == 2
