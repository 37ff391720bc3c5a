"""Our own client against the real server with the real model."""

import asyncio

import numpy as np
import pytest

from deepseek.client import AsyncClient, Client, RequestRefused
from live_server import Live

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
TEXTS = ["The cat sat on the mat.", "Interest rates rose by half a percent."]


def test_chat_and_generate_whole_and_streamed(smollm2: Live) -> None:
    with Client(smollm2.url) as client:
        assert client.models() == ["smollm2"]
        answer = client.chat(QUESTION, temperature=0)
        assert (answer, answer.finish_reason) == (ANSWER, "stop")
        streamed = client.stream_chat(QUESTION, temperature=0, stream_options={"include_usage": True}).answer()
        assert (streamed, streamed.finish_reason) == (ANSWER, "stop")
        assert streamed.usage is not None
        assert answer.usage is not None
        assert streamed.usage.completion_tokens == answer.usage.completion_tokens
        text = client.generate("The capital of France is", temperature=0, max_tokens=8)
        assert client.stream_generate("The capital of France is", temperature=0, max_tokens=8).answer() == text


def test_embed(smollm2: Live) -> None:
    wanted = smollm2.engine.embed(TEXTS)
    with Client(smollm2.url) as client:
        np.testing.assert_array_equal(np.array(client.embed(TEXTS), np.float32), wanted)
        assert client.embed(TEXTS[0]) == client.embed(TEXTS)[0]
        np.testing.assert_array_equal(
            np.array(client.embed(TEXTS, pooling="last"), np.float32), smollm2.engine.embed(TEXTS, pooling="last")
        )
        with pytest.raises(RequestRefused) as refused:
            client.embed(TEXTS[0], dimensions=8)
        assert refused.value.field == "dimensions"


def test_classify(smollm2: Live) -> None:
    with Client(smollm2.url, labels=["weather", "money"]) as client:
        label = client.classify("The bank raised its interest rates and shares fell.")
        assert label == "money"
        assert label.scores["money"] > label.scores["weather"]
        assert sum(label.scores.values()) == pytest.approx(1)


def test_asyncio(smollm2: Live) -> None:
    async def talk() -> list[object]:
        async with AsyncClient(smollm2.url, labels=["weather", "money"]) as client:
            async with client.stream_chat(QUESTION, temperature=0) as stream:
                streamed = "".join([event.text async for event in stream])
            vector = await client.embed(TEXTS[0])
            return [
                await client.chat(QUESTION, temperature=0),
                streamed,
                vector == await client.embed(TEXTS[0], encoding_format="float"),
                await client.classify("The bank raised its interest rates and shares fell."),
            ]

    assert asyncio.run(talk()) == [ANSWER, ANSWER, True, "money"]
