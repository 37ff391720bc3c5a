"""/v1/chat/completions with the real model, driven by the unmodified OpenAI client."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from live_server import Live

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
CLOCK: Any = {"type": "function", "function": {"name": "get_time", "description": "The time of day."}}


@pytest.fixture(scope="module")
def client(smollm2: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{smollm2.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": "smollm2", "messages": QUESTION, "temperature": 0, **fields})


def test_an_answer(client: openai.OpenAI) -> None:
    answer = ask(client, max_tokens=30)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {
        "max_tokens": 24, "n": 2, "seed": 7, "temperature": 0.9, "logprobs": True, "top_logprobs": 2,
    }  # fmt: skip
    whole = ask(client, **fields)
    texts, reasons, tokens = ["", ""], ["", ""], [[], []]  # type: ignore[var-annotated]
    usage = None
    for chunk in ask(client, **fields, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
            tokens[choice.index] += choice.logprobs.content if choice.logprobs else []
    assert texts == [choice.message.content for choice in whole.choices]
    assert texts[0] != texts[1]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert tokens == [choice.logprobs.content for choice in whole.choices]
    assert ["".join(token.token for token in one) for one in tokens] == texts
    assert usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_a_repeated_prompt_is_cached_within_its_salt(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Tell me all you know about red and green apples. " * 8}]

    def cached(salt: str) -> int:
        answer = ask(client, messages=messages, max_tokens=1, extra_body={"cache_salt": salt})
        return int(answer.usage.prompt_tokens_details.cached_tokens)

    assert cached("a") == 0
    assert cached("a") >= 64
    assert cached("b") == 0


def test_stop_seed_and_bias(client: openai.OpenAI) -> None:
    assert ask(client, stop=[" France"]).choices[0].message.content == "The capital of"
    first, second = (ask(client, seed=5, temperature=1, max_tokens=12).choices[0].message.content for _ in range(2))
    assert first == second
    banned = {"504": -100}  # "The"
    assert not ask(client, logit_bias=banned, max_tokens=4).choices[0].message.content.startswith("The")


def test_an_answer_under_a_schema(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 9}}, "required": ["city"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    assert json.loads(ask(client, response_format=form).choices[0].message.content) == {"city": "Paris"}
    choice = ask(client, extra_body={"structured_outputs": {"choice": ["Rome", "Paris"]}})
    assert choice.choices[0].message.content in ("Rome", "Paris")
    digits = ask(client, extra_body={"guided_regex": "[0-9]{4}"})
    assert digits.choices[0].message.content.isdigit()


def test_a_named_function_is_called(client: openai.OpenAI) -> None:
    choice: Any = {"type": "function", "function": {"name": "get_weather"}}
    answer = ask(client, tools=[CLOCK, WEATHER], tool_choice=choice)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["unit"] in ("celsius", "fahrenheit")
    assert answer.choices[0].finish_reason == "tool_calls"


def test_required_calls_come_in_a_stream_as_they_come_whole(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"tools": [WEATHER, CLOCK], "tool_choice": "required", "max_tokens": 200, "seed": 1}
    whole = ask(client, **fields, temperature=0.7).choices[0].message.tool_calls
    found: list[list[str]] = []
    for chunk in ask(client, **fields, temperature=0.7, stream=True):
        for call in chunk.choices[0].delta.tool_calls or ():
            if call.function.name:
                assert call.id
                assert call.index == len(found)
                found.append([call.function.name, ""])
            found[call.index][1] += call.function.arguments
    assert found == [[call.function.name, call.function.arguments] for call in whole]
    assert all(isinstance(json.loads(arguments), dict) for _, arguments in found)


def test_only_one_call_where_only_one_is_wanted(client: openai.OpenAI) -> None:
    answer = ask(client, tools=[WEATHER, CLOCK], tool_choice="required", parallel_tool_calls=False)
    assert len(answer.choices[0].message.tool_calls) == 1


def test_the_model_is_told_of_tools_unless_none_may_be_called(client: openai.OpenAI, smollm2: Live) -> None:
    told = ask(client, tools=[WEATHER], max_tokens=1).usage.prompt_tokens
    untold = ask(client, tools=[WEATHER], tool_choice="none", max_tokens=1).usage.prompt_tokens
    assert told > untold == ask(client, max_tokens=1).usage.prompt_tokens


def test_the_last_message_goes_on(client: openai.OpenAI) -> None:
    messages = [*QUESTION, {"role": "assistant", "content": "The capital of France"}]
    answer = ask(client, messages=messages, extra_body={"continue_final_message": True})
    assert answer.choices[0].message.content == " is Paris."


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'gpt-9' is not served here; there is smollm2"):
        ask(client, model="gpt-9")
    with pytest.raises(openai.BadRequestError, match="temperature must be 0 or above") as refused:
        ask(client, temperature=-1)
    assert refused.value.param == "temperature"


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["smollm2"]
    assert client.models.retrieve("smollm2").id == "smollm2"


def test_the_page_and_its_files(smollm2: Live) -> None:
    page = smollm2.client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert smollm2.client.get("/", headers={"If-None-Match": page.headers["etag"]}).status_code == 304
    for name in ("files.py", "../app.py", "%2e%2e/app.py", "..%2fapp.py", "/etc/passwd", ""):
        assert smollm2.client.get(f"/studio/{name}").status_code == 404
