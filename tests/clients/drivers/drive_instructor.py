"""instructor: every mode of OpenAI's and Anthropic's API that its documentation offers."""

from typing import Any

import anthropic
import instructor
import openai
from checks import API_KEY, API_URL, BASE_URL, MODEL, check
from instructor import Mode
from pydantic import BaseModel

ASKED = [{"role": "user", "content": "Bob is 30 years old. Who is it?"}]


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def extract(mode: Mode, **options: Any) -> None:
    client = instructor.from_openai(openai.OpenAI(base_url=API_URL, api_key=API_KEY, max_retries=0), mode=mode)
    person = client.create(model=MODEL, messages=ASKED, response_model=Person, max_retries=3, **options)
    assert isinstance(person, Person)


@check
def default_mode() -> None:
    client = instructor.from_provider(f"openai/{MODEL}", base_url=API_URL, api_key=API_KEY)
    assert isinstance(client.create(messages=ASKED, response_model=Person, max_retries=3), Person)


@check
def tools() -> None:
    extract(Mode.TOOLS, max_tokens=80)


@check
def tools_strict() -> None:
    extract(Mode.TOOLS_STRICT, max_tokens=80)


@check
def json() -> None:
    extract(Mode.JSON, max_tokens=80)


@check
def json_schema() -> None:
    extract(Mode.JSON_SCHEMA, max_tokens=80)


@check
def markdown_json() -> None:
    extract(Mode.MD_JSON, max_tokens=120)


@check
def responses_tools() -> None:
    extract(Mode.RESPONSES_TOOLS, max_tokens=80)


@check
def partial_stream() -> None:
    client = instructor.from_openai(openai.OpenAI(base_url=API_URL, api_key=API_KEY, max_retries=0))
    parts = list(client.create_partial(model=MODEL, messages=ASKED, response_model=Person, max_tokens=80))
    assert parts[-1].age is not None


def extract_from_messages(mode: Mode) -> None:
    bare = anthropic.Anthropic(base_url=BASE_URL, api_key=API_KEY, max_retries=0)
    client = instructor.from_anthropic(bare, mode=mode)
    person = client.create(model=MODEL, messages=ASKED, response_model=Person, max_tokens=300, max_retries=3)
    assert isinstance(person, Person)


@check
def anthropic_tools() -> None:
    extract_from_messages(Mode.ANTHROPIC_TOOLS)


@check
def anthropic_json() -> None:
    extract_from_messages(Mode.ANTHROPIC_JSON)
