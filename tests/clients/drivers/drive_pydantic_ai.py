"""pydantic-ai: an agent over chat, responses and messages: history, stream, tools, the three kinds of output."""

from typing import Any

from checks import API_KEY, API_URL, BASE_URL, MODEL, check
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

openai = OpenAIProvider(base_url=API_URL, api_key=API_KEY)
anthropic = AnthropicProvider(base_url=BASE_URL, api_key=API_KEY)
SETTINGS: Any = {"max_tokens": 100}
MODELS: dict[str, Any] = {
    "chat": OpenAIChatModel(MODEL, provider=openai),
    "responses": OpenAIResponsesModel(MODEL, provider=openai),
    "messages": AnthropicModel(MODEL, provider=anthropic),
}
PERSON = "Bob is 30 years old. Who is it?"


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


@check
def history() -> None:
    for model in MODELS.values():
        agent = Agent(model, instructions="Be brief.", model_settings=SETTINGS)
        first = agent.run_sync("My name is Bob.")
        assert agent.run_sync("What is my name?", message_history=first.all_messages()).output


@check
async def stream() -> None:
    for model in MODELS.values():
        async with Agent(model, model_settings=SETTINGS).run_stream("Count to five.") as result:
            assert [part async for part in result.stream_text(delta=True)]


@check
def tools() -> None:
    for model in MODELS.values():
        agent = Agent(model, tools=[get_weather], model_settings=SETTINGS)
        assert agent.run_sync("What is the weather in Paris? Use the tool.").output


@check
def output_as_tool() -> None:
    """The default: a call of one tool is required."""
    for model in MODELS.values():
        agent = Agent(model, output_type=Person, tools=[get_weather], model_settings=SETTINGS, retries=3)
        assert isinstance(agent.run_sync(PERSON).output, Person)


@check
def native_output() -> None:
    for name in ("chat", "responses"):
        agent = Agent(MODELS[name], output_type=NativeOutput(Person), model_settings=SETTINGS, retries=3)
        assert isinstance(agent.run_sync(PERSON).output, Person)


@check
def prompted_output() -> None:
    for model in MODELS.values():
        agent = Agent(model, output_type=PromptedOutput(Person), model_settings=SETTINGS, retries=3)
        assert isinstance(agent.run_sync(PERSON).output, Person)
