"""OpenAI Agents SDK: tools, a hand-off, structured output, stream and session, over both APIs."""

import contextlib
from typing import Any

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
)  # fmt: skip
from agents.exceptions import MaxTurnsExceeded
from checks import API_KEY, API_URL, MODEL, check
from openai import AsyncOpenAI
from openai.types.shared import Reasoning
from pydantic import BaseModel

KINDS: Any = (OpenAIResponsesModel, OpenAIChatCompletionsModel)
SETTINGS = ModelSettings(max_tokens=80)


def models() -> list[Any]:
    """New clients for each check, as each has an event loop of its own."""
    return [kind(MODEL, AsyncOpenAI(base_url=API_URL, api_key=API_KEY, max_retries=0)) for kind in KINDS]


class Person(BaseModel):
    name: str
    age: int


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


@check
async def session() -> None:
    for model in models():
        agent = Agent(name="Helper", instructions="Be brief.", model=model, model_settings=SETTINGS)
        kept = SQLiteSession("one")
        await Runner.run(agent, "My name is Bob.", session=kept)
        assert (await Runner.run(agent, "What is my name?", session=kept)).final_output


@check
async def stream() -> None:
    for model in models():
        result = Runner.run_streamed(Agent(name="Helper", model=model, model_settings=SETTINGS), "Count to five.")
        assert [event async for event in result.stream_events()]


@check
async def tools() -> None:
    for model in models():
        agent = Agent(name="Helper", model=model, tools=[get_weather], model_settings=SETTINGS)
        with contextlib.suppress(MaxTurnsExceeded):  # a small model may call again and again
            assert (await Runner.run(agent, "What is the weather in Paris? Use the tool.")).new_items


@check
async def required_tool() -> None:
    settings = ModelSettings(max_tokens=80, tool_choice="required")
    for model in models():
        agent = Agent(name="Helper", model=model, tools=[get_weather], model_settings=settings)
        result = await Runner.run(agent, "What is the weather in Paris?")
        assert any(item.type == "tool_call_output_item" for item in result.new_items)


@check
async def structured_output() -> None:
    for model in models():
        agent = Agent(name="Helper", model=model, output_type=Person, model_settings=SETTINGS)
        assert isinstance((await Runner.run(agent, "Bob is 30 years old. Who is it?")).final_output, Person)


@check
async def hand_off() -> None:
    for model in models():
        other = Agent(name="Spanish", instructions="Answer in Spanish.", model=model, model_settings=SETTINGS)
        settings = ModelSettings(max_tokens=80, tool_choice="required")
        agent = Agent(name="Triage", instructions="Hand off.", model=model, handoffs=[other], model_settings=settings)
        with contextlib.suppress(MaxTurnsExceeded):
            assert (await Runner.run(agent, "Hola!", max_turns=3)).last_agent.name == "Spanish"


@check
async def reasoning_settings() -> None:
    settings = ModelSettings(max_tokens=80, reasoning=Reasoning(effort="low"), verbosity="low")
    for model in models():
        assert (await Runner.run(Agent(name="Helper", model=model, model_settings=settings), "Hello!")).final_output
