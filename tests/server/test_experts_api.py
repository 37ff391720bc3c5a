"""Which experts tokens used, by request and in sum; a tiny random model."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from deepseek.server.expert_metrics import layer_load
from live_server import Live, events


def expected(server: Live, prompt: str, count: int) -> Any:
    ids = server.service.tokenizer.encode(prompt)
    return len(ids), server.engine.generate(
        ids, max_tokens=count, temperature=0, ignore_eos=True, record_routing=True
    ).samples[0].routing  # type: ignore[union-attr]


def check(told: list[Any], routing: Any, first: int) -> None:
    assert told
    for place, token in enumerate(told):
        for layer, (ids, weights) in enumerate(token):
            assert ids == routing.experts[first + place, layer].tolist()
            assert np.allclose(weights, routing.weights[first + place, layer], atol=1e-5)


def test_generated_tokens_and_the_prompt(tiny: Live) -> None:
    prompt, routing = expected(tiny, "experts", 12)
    body = {"prompt": "experts", "max_tokens": 12, "temperature": 0, "ignore_eos": True, "routed_experts": "all"}
    choice = tiny.post("/v1/completions", body).json()["choices"][0]
    assert len(choice["routed_experts"]) == 12
    assert len(choice["prompt_routed_experts"]) == prompt
    check(choice["prompt_routed_experts"], routing, 0)
    check(choice["routed_experts"], routing, prompt - 1)


def test_a_stream_tells_them_with_the_tokens(tiny: Live) -> None:
    fields = {"max_tokens": 20, "temperature": 0, "ignore_eos": True, "routed_experts": True, "logprobs": True}
    whole = tiny.chat("hello", **fields).json()["choices"][0]
    told: list[Any] = []
    for chunk in events(tiny.chat("hello", **fields, stream=True)):
        for choice in chunk["choices"]:
            tokens = choice["logprobs"]["content"] if choice["logprobs"] else []
            assert len(choice.get("routed_experts", [])) == len(tokens)
            told += choice.get("routed_experts", [])
    assert told == whole["routed_experts"]
    assert len(told) == len(whole["logprobs"]["content"])


def test_status_and_metrics_tell_the_load(tiny: Live) -> None:
    tiny.chat("hello", max_tokens=8)
    experts = tiny.client.get("/v1/server/status").json()["experts"]
    totals = tiny.engine.routing_totals()
    assert experts["layers"] == list(totals) == tiny.client.get("/v1/models").json()["data"][0]["experts"]["layers"]
    assert experts["totals"] == [counts.tolist() for counts in totals.values()]
    text = tiny.client.get("/metrics").text
    for name in ("entropy", "gini", "max_vio", "top_share"):
        assert len(experts[name]) == len(totals)
        assert text.count(f"\ndeepseek:expert_load_{name}{{") == len(totals)


def test_the_dashboard_shows_what_there_is(tiny: Live) -> None:
    """Every metric that docs/grafana/deepseek.json asks for is one of the server's."""
    tiny.chat("hello", max_tokens=8)
    text = tiny.client.get("/metrics").text
    there = set(re.findall(r"^(deepseek:\w+)", text, re.MULTILINE))
    asked = set(re.findall(r"deepseek:\w+", (Path(__file__).parents[2] / "docs/grafana/deepseek.json").read_text()))
    assert len(asked) >= 15
    assert asked <= there, asked - there


def test_figures_of_a_known_load() -> None:
    even = layer_load(1, np.full(20, 5))
    assert (round(even.entropy, 6), round(even.gini, 6), even.max_vio, even.top_share) == (1.0, 0.0, 0.0, 0.1)
    counts = np.zeros(20, np.int64)
    counts[3] = 7
    one = layer_load(1, counts)
    assert (one.entropy, round(one.gini, 6), one.max_vio, one.top_share) == (0.0, 0.95, 19.0, 1.0)
    assert layer_load(1, np.zeros(4, np.int64)).max_vio == 0.0


def test_a_dense_model_refuses(smollm2: Live) -> None:
    response = smollm2.chat("hello", routed_experts=True)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "routed_experts"
    assert smollm2.client.get("/v1/server/status").json()["experts"] is None
