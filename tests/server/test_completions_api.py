"""/v1/completions as lm-evaluation-harness and others use it, and the token routes."""

from typing import Any

import pytest

from deepseek.sampling import SamplingParams
from live_server import Live, events

PROMPT = "The capital of France is"


def complete(server: Live, **fields: Any) -> Any:
    response = server.post("/v1/completions", {"model": "smollm2", "prompt": PROMPT, "temperature": 0, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def test_a_prompt_is_scored_as_the_engine_scores_it(smollm2: Live) -> None:
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=1, logprobs=1)
    expected: Any = smollm2.engine.generate(PROMPT, params)
    answer = complete(smollm2, echo=True, logprobs=1, max_tokens=1)
    choice = answer["choices"][0]
    logprobs = choice["logprobs"]
    scores = [logprob for logprob, _ in [*expected.prompt_logprobs, *expected.logprobs]]
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["token_logprobs"][1:] == pytest.approx(scores, abs=1e-6)
    assert "".join(logprobs["tokens"]) == choice["text"] == PROMPT + " Paris"
    assert [choice["text"].index(token, offset) for token, offset in
            zip(logprobs["tokens"], logprobs["text_offset"], strict=True)] == logprobs["text_offset"]  # fmt: skip
    for token, logprob, top in list(zip(*(logprobs[name] for name in ("tokens", "token_logprobs", "top_logprobs")),
                                        strict=True))[1:]:  # fmt: skip
        assert top[token] == logprob <= max(top.values())


def test_scoring_alone_generates_nothing(smollm2: Live) -> None:
    whole = complete(smollm2, echo=True, logprobs=1, max_tokens=1)["choices"][0]["logprobs"]
    ids = smollm2.service.tokenizer.encode(PROMPT)
    answer = complete(smollm2, prompt=[ids, ids[:3]], echo=True, logprobs=1, max_tokens=0)
    assert [choice["text"] for choice in answer["choices"]] == [PROMPT, "The capital of"]
    assert answer["choices"][0]["logprobs"]["token_logprobs"] == whole["token_logprobs"][:-1]
    assert answer["usage"]["completion_tokens"] == 0


def test_the_end_token_is_scored_too(smollm2: Live) -> None:
    """The harness takes away the last entry as the generated token, so one must be there."""
    bias = {"2": 100}  # <|im_end|>
    answer = complete(smollm2, echo=True, logprobs=1, max_tokens=1, logit_bias=bias)
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == len(smollm2.service.tokenizer.encode(PROMPT)) + 1


def test_many_prompts_stream_as_they_come_whole(smollm2: Live) -> None:
    fields: Any = {"prompt": [PROMPT, "One, two, three,", "def add(a, b):"], "max_tokens": 6, "n": 2, "seed": 3,
                   "temperature": 0.8, "logprobs": 2, "echo": True}  # fmt: skip
    whole = complete(smollm2, **fields)["choices"]
    response = smollm2.post("/v1/completions", {**fields, "stream": True})
    texts, logprobs = [""] * 6, [[] for _ in range(6)]  # type: ignore[var-annotated]
    for chunk in events(response):
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
            logprobs[choice["index"]] += choice["logprobs"]["token_logprobs"]
    assert texts == [choice["text"] for choice in whole]
    assert logprobs == [choice["logprobs"]["token_logprobs"] for choice in whole]
    assert [choice["index"] for choice in whole] == list(range(6))


def test_a_gap_is_refused_by_name(smollm2: Live) -> None:
    response = smollm2.post("/v1/completions", {"prompt": "def f(", "suffix": "return x"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "suffix"


def test_one_wrong_prompt_of_many(smollm2: Live) -> None:
    for stream in (False, True):
        response = smollm2.post("/v1/completions", {"prompt": [[1, 2], [10**6]], "stream": stream})
        assert response.status_code == 400
        assert "token id 1000000 is outside the vocabulary" in response.json()["error"]["message"]


def test_an_empty_prompt_is_the_token_that_stands_before_a_text(smollm2: Live) -> None:
    start = smollm2.service.tokenizer.bos_token_id
    fields = {"max_tokens": 5, "temperature": 0}
    empty = complete(smollm2, prompt="", **fields)
    assert empty["choices"][0]["text"] == complete(smollm2, prompt=[start], **fields)["choices"][0]["text"]
    assert empty["usage"]["prompt_tokens"] == 1
    assert len(complete(smollm2, prompt=[PROMPT, ""], **fields)["choices"]) == 2


def test_bounds_of_other_servers(smollm2: Live) -> None:
    none = complete(smollm2, prompt=PROMPT, max_tokens=0)
    assert (none["choices"][0]["text"], none["choices"][0]["finish_reason"]) == ("", "length")
    assert none["usage"]["completion_tokens"] == 0
    stopped = complete(smollm2, prompt=PROMPT, n_predict=-1, stop=["."], temperature=0)
    assert stopped["choices"][0]["finish_reason"] == "stop"
    assert len(complete(smollm2, prompt=PROMPT, max_tokens=1, logprobs=500)["choices"][0]["logprobs"]["tokens"]) == 1


def test_tokens_there_and_back(smollm2: Live) -> None:
    told = smollm2.post("/tokenize", {"prompt": "Hello world", "return_token_strs": True}).json()
    assert told["token_strs"] == ["Hello", " world"]
    assert told["count"] == len(told["tokens"]) == 2
    assert smollm2.post("/detokenize", {"tokens": told["tokens"]}).json()["prompt"] == "Hello world"
    messages = [{"role": "user", "content": "Hi <|im_end|>"}]
    chat = smollm2.post("/tokenize", {"messages": messages}).json()["tokens"]
    assert chat == smollm2.service.tokenizer.encode_chat(messages)
    assert smollm2.post("/detokenize", {"tokens": [49152]}).status_code == 400
