"""Haystack: chat generators for both APIs with stream, tools and structured output; an agent; embedders."""

import os

from checks import API_KEY, API_URL, MODEL, check

os.environ["OPENAI_API_KEY"] = API_KEY
from haystack.components.agents import Agent
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage, Document
from haystack.tools import create_tool_from_function
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


TOOL = create_tool_from_function(get_weather)
CHAT = (OpenAIChatGenerator, "max_tokens", "response_format")
RESPONSES = (OpenAIResponsesChatGenerator, "max_output_tokens", "text_format")


def generators(**options):
    for kind, length, _ in (CHAT, RESPONSES):
        yield kind(api_base_url=API_URL, model=MODEL, generation_kwargs={length: 60}, **options)


@check
def history() -> None:
    for generator in generators():
        turns = [ChatMessage.from_system("Be brief."), ChatMessage.from_user("My name is Bob.")]
        answer = generator.run(messages=turns)["replies"][0]
        turns += [answer, ChatMessage.from_user("What is my name?")]
        assert generator.run(messages=turns)["replies"][0].text


@check
def stream() -> None:
    for generator in generators():
        parts = []
        generator.run(messages=[ChatMessage.from_user("Count to five.")], streaming_callback=parts.append)
        assert parts


@check
def structured_output() -> None:
    for kind, length, form in (CHAT, RESPONSES):
        generator = kind(api_base_url=API_URL, model=MODEL, generation_kwargs={length: 60, form: Person})
        replies = generator.run(messages=[ChatMessage.from_user("Bob is 30 years old. Who is it?")])["replies"]
        Person.model_validate_json(replies[0].text)


@check
def agents() -> None:
    for generator in generators():
        agent = Agent(chat_generator=generator, tools=[TOOL], max_agent_steps=3)
        assert agent.run(messages=[ChatMessage.from_user("What is the weather in Paris? Use the tool.")])["messages"]


@check
def embedders() -> None:
    assert OpenAITextEmbedder(api_base_url=API_URL, model=MODEL).run("a cat")["embedding"]
    documents = [Document(content="a cat"), Document(content="a dog")]
    assert OpenAIDocumentEmbedder(api_base_url=API_URL, model=MODEL, progress_bar=False).run(documents)["documents"]
