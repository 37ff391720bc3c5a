"""smolagents: ToolCallingAgent and CodeAgent with OpenAIModel, also streamed and with structured output."""

from checks import API_KEY, API_URL, MODEL, check
from smolagents import CodeAgent, OpenAIModel, ToolCallingAgent, tool

model = OpenAIModel(model_id=MODEL, api_base=API_URL, api_key=API_KEY, max_tokens=120)


@tool
def get_weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: its name
    """
    return f"It is sunny in {city}."


@check
def tool_calling_agent() -> None:
    ToolCallingAgent(tools=[get_weather], model=model, max_steps=2).run("What is the weather in Paris?")


@check
def tool_calling_agent_streamed() -> None:
    agent = ToolCallingAgent(tools=[get_weather], model=model, max_steps=2, stream_outputs=True)
    assert list(agent.run("What is the weather in Paris?", stream=True))


@check
def code_agent() -> None:
    CodeAgent(tools=[get_weather], model=model, max_steps=2).run("How much is 17 times 3?")


@check
def code_agent_with_structured_output() -> None:
    CodeAgent(tools=[], model=model, max_steps=2, use_structured_outputs_internally=True).run("How much is 17 times 3?")
