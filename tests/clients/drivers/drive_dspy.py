"""DSPy: Predict, ChainOfThought and ReAct with the chat and JSON adapters; embeddings."""

import dspy
from checks import API_KEY, API_URL, MODEL, check
from dspy.utils.exceptions import AdapterParseError
from pydantic import BaseModel

lm = dspy.LM(f"openai/{MODEL}", api_base=API_URL, api_key=API_KEY, max_tokens=150, cache=False, num_retries=0)
dspy.configure(lm=lm)


class Person(BaseModel):
    name: str
    age: int


class Extract(dspy.Signature):
    """Find the person."""

    text: str = dspy.InputField()
    person: Person = dspy.OutputField()


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


def run(module: dspy.Module, **inputs: str) -> None:
    """What a small model writes may not parse; the adapters then ask again in other forms, which must be answered."""
    try:
        assert module(**inputs)
    except AdapterParseError as error:
        print(error)


@check
def plain_call() -> None:
    assert lm("Say hello.")[0]


@check
def predict() -> None:
    run(dspy.Predict("question -> answer"), question="What is the capital of France?")
    run(dspy.ChainOfThought("question -> answer"), question="What is the capital of France?")


@check
def json_adapter() -> None:
    with dspy.context(adapter=dspy.JSONAdapter()):
        run(dspy.Predict(Extract), text="Bob is 30 years old.")


@check
def typed_output() -> None:
    run(dspy.Predict(Extract), text="Bob is 30 years old.")


@check
def react() -> None:
    run(dspy.ReAct("question -> answer", tools=[get_weather], max_iters=2), question="What is the weather in Paris?")


@check
def responses() -> None:
    other = dspy.LM(
        f"openai/{MODEL}", model_type="responses", api_base=API_URL, api_key=API_KEY, max_tokens=60, cache=False,
        num_retries=0,
    )  # fmt: skip
    assert other("Say hello.")


@check
def embeddings() -> None:
    made = dspy.Embedder(f"openai/{MODEL}", api_base=API_URL, api_key=API_KEY, caching=False)(["a cat", "a dog"])
    assert len(made) == 2
