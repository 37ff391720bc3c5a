"""LlamaIndex: OpenAILike for chat, stream, tools, an agent, structured output; embeddings."""

from checks import API_KEY, API_URL, MODEL, check
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

llm = OpenAILike(
    model=MODEL, api_base=API_URL, api_key=API_KEY, is_chat_model=True, is_function_calling_model=True,
    context_window=32_768, max_tokens=60, max_retries=0,
)  # fmt: skip


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


TOOL = FunctionTool.from_defaults(get_weather)


@check
def chat_with_history() -> None:
    turns = [("system", "Be brief."), ("user", "My name is Bob."), ("assistant", "Hi!"), ("user", "What is my name?")]
    assert llm.chat([ChatMessage(role=role, content=text) for role, text in turns]).message.content


@check
def complete_and_stream() -> None:
    assert llm.complete("Say hello.").text
    assert list(llm.stream_complete("Count to five."))[-1].text


@check
def completions_api() -> None:
    plain = OpenAILike(model=MODEL, api_base=API_URL, api_key=API_KEY, is_chat_model=False, max_tokens=20)
    assert plain.complete("def add(a, b):").text


@check
def forced_tool() -> None:
    answer = llm.chat_with_tools([TOOL], "What is the weather in Paris?", tool_required=True)
    assert llm.get_tool_calls_from_response(answer)


@check
def predict_and_call() -> None:
    assert llm.predict_and_call([TOOL], "What is the weather in Paris?", tool_required=True)


@check
def structured_output() -> None:
    assert isinstance(llm.as_structured_llm(Person).complete("Bob is 30 years old. Who is it?").raw, Person)


@check
def json_schema_output() -> None:
    structured = OpenAILike(
        model=MODEL, api_base=API_URL, api_key=API_KEY, is_chat_model=True, should_use_structured_outputs=True,
        max_tokens=60,
    )  # fmt: skip
    assert isinstance(structured.as_structured_llm(Person).complete("Bob is 30 years old. Who is it?").raw, Person)


@check
async def agent() -> None:
    assert await FunctionAgent(tools=[get_weather], llm=llm).run("What is the weather in Paris?")


@check
def embeddings() -> None:
    made = OpenAILikeEmbedding(model_name=MODEL, api_base=API_URL, api_key=API_KEY)
    assert len(made.get_text_embedding_batch(["a cat", "a dog"])) == 2
