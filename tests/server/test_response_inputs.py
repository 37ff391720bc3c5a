"""The inputs of stored responses, listed and counted, with OpenAI's own client."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from live_server import Live


@pytest.fixture
def client(tiny: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{tiny.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_input_items_of_a_conversation(client: Any) -> None:
    first = client.responses.create(input="one", max_output_tokens=2)
    second = client.responses.create(
        previous_response_id=first.id, max_output_tokens=2,
        input=[{"role": "user", "content": [{"type": "input_text", "text": "two"}]}],
    )  # fmt: skip
    listed = list(client.responses.input_items.list(second.id, order="asc"))
    assert [item.type for item in listed] == ["message", *(item.type for item in first.output), "message"]
    assert listed[0].content[0].text == "one"
    assert listed[-1].content[0].text == "two"
    assert len({item.id for item in listed}) == len(listed)
    newest = client.responses.input_items.list(second.id, limit=1)
    assert newest.data[0].id == listed[-1].id
    assert newest.has_more
    after = client.responses.input_items.list(second.id, after=newest.last_id, limit=100)
    assert [item.id for item in after.data] == [item.id for item in reversed(listed[:-1])]
    assert [item.id for item in client.responses.input_items.list(second.id, limit=1)] == [
        item.id for item in reversed(listed)
    ]


def test_what_is_not_there(client: Any) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no response"):
        client.responses.input_items.list("resp_none")
    stored = client.responses.create(input="one", max_output_tokens=1)
    with pytest.raises(openai.BadRequestError, match="after names"):
        client.responses.input_items.list(stored.id, after="msg_none")
    with pytest.raises(openai.NotFoundError, match="not compacted"):
        client.post("/responses/compact", body={"model": "tiny", "input": "hi"}, cast_to=object)


def test_inputs_are_counted(client: Any) -> None:
    counted = client.responses.input_tokens.count(input="how long?", instructions="be brief")
    answered = client.responses.create(input="how long?", instructions="be brief", max_output_tokens=1)
    assert answered.usage is not None
    assert counted.input_tokens == answered.usage.input_tokens
    assert counted.object == "response.input_tokens"
