"""LangChain: ChatOpenAI over both APIs, ChatAnthropic, an agent, structured output, embeddings."""

from typing import Any

from checks import API_KEY, API_URL, BASE_URL, MODEL, check
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

OPENAI: dict[str, Any] = {"base_url": API_URL, "api_key": API_KEY, "model": MODEL, "max_retries": 0}
chat = ChatOpenAI(**OPENAI, max_tokens=60)
responses = ChatOpenAI(**OPENAI, max_tokens=60, use_responses_api=True)
messages = ChatAnthropic(base_url=BASE_URL, api_key=API_KEY, model=MODEL, max_tokens=60, max_retries=0)
PERSON = "Bob is 30 years old. Who is it?"
HISTORY = [("system", "Be brief."), ("human", "My name is Bob."), ("ai", "Hello Bob!"), ("human", "What is my name?")]


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


def converse(model: Any) -> None:
    assert model.invoke(HISTORY).text
    assert "".join(chunk.text for chunk in model.stream("Count to five."))


def call_tool(model: Any) -> None:
    forced = model.bind_tools([get_weather], tool_choice="get_weather")
    asked: list[Any] = [("human", "What is the weather in Paris?")]
    answer = forced.invoke(asked)
    (call,) = answer.tool_calls
    asked += [answer, get_weather.invoke(call)]
    assert model.bind_tools([get_weather]).invoke(asked)


@check
def chat_completions() -> None:
    converse(chat)
    call_tool(chat)


@check
def chat_structured_output() -> None:
    for method in ("json_schema", "function_calling", "json_mode"):
        question = PERSON + " Answer in JSON with the keys name and age."
        assert isinstance(chat.with_structured_output(Person, method=method, include_raw=True).invoke(question), dict)
    assert isinstance(chat.with_structured_output(Person).invoke(PERSON), Person)


@check
def responses_api() -> None:
    converse(responses)
    call_tool(responses)
    assert isinstance(responses.with_structured_output(Person).invoke(PERSON), Person)


@check
def anthropic() -> None:
    converse(messages)
    call_tool(messages)
    assert isinstance(messages.with_structured_output(Person).invoke(PERSON), Person)
    assert messages.get_num_tokens_from_messages([HumanMessage("Hello!")]) > 1


@check
def agents() -> None:
    for model in (chat, responses, messages):
        agent = create_agent(model, [get_weather], system_prompt="Use tools.")
        assert agent.invoke({"messages": [("human", "What is the weather in Paris?")]})["messages"][-1].text is not None


@check
def embeddings() -> None:
    made = OpenAIEmbeddings(base_url=API_URL, api_key=API_KEY, model=MODEL, check_embedding_ctx_length=False)
    assert len(made.embed_documents(["a cat", "a dog"])) == 2
