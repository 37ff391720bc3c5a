"""/v1/score and /v1/rerank with the real model."""

import math
from typing import Any

import pytest

from live_server import Live

DOCUMENTS = [
    "Bread is baked from dough of flour, water and yeast.",
    "Paris is the capital and largest city of France, on the river Seine.",
    "To reset your password, open settings and choose 'Forgot password'.",
]


def test_the_document_that_answers_comes_first(smollm2: Live) -> None:
    for query, best in (("What is the capital of France?", 1), ("how to bake bread", 0), ("I forgot my password", 2)):
        told = smollm2.post("/v1/rerank", {"query": query, "documents": DOCUMENTS}).json()
        results = told["results"]
        assert results[0]["index"] == best
        assert results[0]["document"] == {"text": DOCUMENTS[best]}
        assert sorted(result["index"] for result in results) == [0, 1, 2]
        scores = [result["relevance_score"] for result in results]
        assert scores == sorted(scores, reverse=True)
        assert all(0 < score <= 1 for score in scores)


def test_a_score_is_the_probability_of_the_querys_tokens(smollm2: Live) -> None:
    """What the docstring says, by another way: the log-probabilities of /v1/completions with echo."""
    query, document = "What is the capital of France?", DOCUMENTS[1]
    (found,) = smollm2.post("/v1/score", {"text_1": query, "text_2": document}).json()["data"]
    tokenizer = smollm2.service.tokenizer
    before = tokenizer.encode(f"Text: {document}\nA question or search that this text answers:")
    asked = tokenizer.encode(f" {query}")
    body = {"prompt": before + asked, "echo": True, "logprobs": 0, "max_tokens": 0}
    logprobs = smollm2.post("/v1/completions", body).json()["choices"][0]["logprobs"]["token_logprobs"][-len(asked) :]
    assert found["score"] == pytest.approx(math.exp(sum(logprobs) / len(asked)), rel=1e-9)


def test_score_and_rerank_agree(smollm2: Live) -> None:
    query = "how to bake bread"
    scored = smollm2.post("/v1/score", {"text_1": query, "text_2": DOCUMENTS}).json()
    told = smollm2.post("/v2/rerank", {"query": query, "documents": [{"text": text} for text in DOCUMENTS]}).json()
    by_place = {result["index"]: result["relevance_score"] for result in told["results"]}
    assert [one["score"] for one in scored["data"]] == [by_place[place] for place in range(3)]
    assert scored["usage"] == told["usage"]
    pairs = smollm2.post("/score", {"text_1": [query] * 3, "text_2": DOCUMENTS}).json()
    assert pairs["data"] == scored["data"]


def test_only_the_best_and_without_their_texts(smollm2: Live) -> None:
    body = {"query": "bread", "documents": DOCUMENTS, "top_n": 1, "return_documents": False}
    (result,) = smollm2.post("/rerank", body).json()["results"]
    assert result.keys() == {"index", "relevance_score"}


def test_fields_that_other_servers_know(smollm2: Live) -> None:
    plain = smollm2.post("/v1/rerank", {"query": "bread", "documents": DOCUMENTS})
    more = {"top_n": 0, "max_tokens_per_doc": 4096}
    told = smollm2.post("/v1/rerank", {"query": "bread", "documents": DOCUMENTS, **more})
    assert told.json()["results"] == plain.json()["results"]
    assert told.headers["x-ignored-fields"] == "max_tokens_per_doc"
    titled = [{"text": text, "title": "x"} for text in DOCUMENTS]
    listed = smollm2.post("/v1/rerank", {"query": "bread", "documents": titled})
    assert listed.json()["results"] == plain.json()["results"]
    assert listed.headers["x-ignored-fields"] == "documents[].title"


def test_texts_are_answered_as_text_embeddings_inference_does(smollm2: Live) -> None:
    plain = smollm2.post("/rerank", {"query": "bread", "documents": DOCUMENTS}).json()["results"]
    told = smollm2.post("/rerank", {"query": "bread", "texts": DOCUMENTS, "return_text": True}).json()
    assert told == [{"index": one["index"], "score": one["relevance_score"], "text": one["document"]["text"]}
                    for one in plain]  # fmt: skip
    assert "text" not in smollm2.post("/rerank", {"query": "bread", "texts": DOCUMENTS}).json()[0]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/rerank", {"query": " ", "documents": ["a"]}, "a query must have at least one character"),
        ("/v1/rerank", {"query": "a", "documents": []}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "truncate_prompt_tokens": 9}, "truncate_prompt_tokens"),
        ("/v1/rerank", {"query": "a", "documents": [{"image": "x"}]}, "documents.0"),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, "text_1 must be one text, or as many as"),
    ],
)
def test_refusals(smollm2: Live, path: str, body: dict[str, Any], said: str) -> None:
    answer = smollm2.post(path, body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_the_template_of_a_chat(smollm2: Live) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <|im_end|>"}]
    told = smollm2.post("/apply-template", {"messages": messages}).json()
    system, user = "<|im_start|>system\nBe brief.<|im_end|>\n", "<|im_start|>user\nHi <|im_end|><|im_end|>\n"
    assert told == {"prompt": f"{system}{user}<|im_start|>assistant\n"}
    begun = [*messages, {"role": "assistant", "content": "Hello"}]
    told = smollm2.post("/apply-template", {"messages": begun, "continue_final_message": True}).json()
    assert told["prompt"].endswith("<|im_start|>assistant\nHello")
