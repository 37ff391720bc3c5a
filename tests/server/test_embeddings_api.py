"""/v1/embeddings with the real model, driven by the unmodified OpenAI client and by curl's own words."""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest

from live_server import Live

TEXTS = ["The cat sat on the mat.", "A kitten lay on the rug.", "Interest rates rose by half a percent."]


@pytest.fixture(scope="module")
def client(smollm2: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{smollm2.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def embed(client: openai.OpenAI, **fields: Any) -> Any:
    return client.embeddings.create(**{"model": "smollm2", **fields})


def test_vectors_are_the_engines_own(client: openai.OpenAI, smollm2: Live) -> None:
    told = embed(client, input=TEXTS)
    vectors = np.array([one.embedding for one in told.data], np.float32)
    np.testing.assert_array_equal(vectors, smollm2.engine.embed(TEXTS))
    assert [one.index for one in told.data] == [0, 1, 2]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    count = sum(smollm2.post("/tokenize", {"prompt": text}).json()["count"] for text in TEXTS)
    assert (told.usage.prompt_tokens, told.usage.total_tokens) == (count, count)


def test_numbers_and_base64_are_the_same_vectors(smollm2: Live) -> None:
    def told(encoding: str) -> Any:
        return smollm2.post("/v1/embeddings", {"input": TEXTS[0], "encoding_format": encoding}).json()

    numbers, coded = told("float"), told("base64")
    vector = np.frombuffer(base64.b64decode(coded["data"][0].pop("embedding")), "<f4")
    np.testing.assert_array_equal(np.array(numbers["data"][0].pop("embedding"), np.float32), vector)
    assert numbers == coded


def test_token_ids_are_taken_alone_and_in_lists(client: openai.OpenAI, smollm2: Live) -> None:
    ids = [smollm2.service.tokenizer.encode(text) for text in TEXTS[:2]]
    by_text = [one.embedding for one in embed(client, input=TEXTS[:2]).data]
    assert [one.embedding for one in embed(client, input=ids).data] == by_text
    assert embed(client, input=ids[0]).data[0].embedding == by_text[0]


def test_pooling_and_length(client: openai.OpenAI, smollm2: Live) -> None:
    told = embed(client, input=TEXTS[0], extra_body={"pooling": "last", "normalize": False})
    wanted = smollm2.engine.embed(TEXTS[0], pooling="last", normalize=False)
    np.testing.assert_array_equal(np.array(told.data[0].embedding, np.float32), wanted)


def test_more_inputs_than_run_at_a_time(client: openai.OpenAI) -> None:
    told = embed(client, input=[f"Number {place}" for place in range(40)])
    assert [one.index for one in told.data] == list(range(40))
    assert len({tuple(one.embedding) for one in told.data}) == 40


def test_embeddings_count_no_generated_tokens(client: openai.OpenAI, smollm2: Live) -> None:
    def generated() -> int:
        return int(smollm2.client.get("/v1/server/status").json()["tokens"]["generated"])

    before = generated()
    embed(client, input=TEXTS)
    assert generated() == before


def test_fields_that_other_servers_know(smollm2: Live) -> None:
    plain = smollm2.post("/v1/embeddings", {"input": "a"}).json()["data"]
    more = {"encoding_format": None, "dimensions": 576, "input_type": "query", "user": "x", "truncate": "END"}
    told = smollm2.post("/v1/embeddings", {"input": "a", **more})
    assert told.json()["data"] == plain
    assert told.headers["x-ignored-fields"] == "input_type, user, truncate"


def test_an_empty_text_has_a_vector_too(client: openai.OpenAI) -> None:
    both = embed(client, input=["a", ""]).data
    assert len(both[1].embedding) == 576
    assert both[1].embedding == embed(client, input="").data[0].embedding


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"input": "a", "dimensions": 64}, "dimensions must be left out or 576"),
        ({"input": [10**6]}, "token id 1000000 is outside the vocabulary"),
        ({"input": []}, "input"),
        ({"input": [[1], "a"]}, "input"),
        ({"input": "a", "extra_body": {"truncate_prompt_tokens": 3}}, "truncate_prompt_tokens is not supported"),
        ({"input": "word " * 9000}, "the prompt is too long"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_refusals(client: openai.OpenAI, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said):
        embed(client, **fields)
