"""What real clients sent, sent again to a tiny model: nothing is refused, every answer parses."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic.types as anthropic_types
import httpx2 as httpx
import pytest
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from live_server import Live, live, tiny_engine, write_tiny_moe

RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*.json"))
TEMPLATE = Path(__file__).parent.parent / "tokenizer" / "templates" / "qwen2.5.jinja"
MODEL = "qwen2.5-coder-0.5b-q4"
REFERENCE = r'((?:"item_reference", "id"|"previous_response_id"): ")(resp|msg|rs|fc)_[0-9a-f]+"'
LENGTH_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_tokens_to_sample")
ANSWER_TOKENS = 3
BYTES = 256
TYPES: dict[str, tuple[Any, Any]] = {
    "/v1/chat/completions": (ChatCompletion, ChatCompletionChunk),
    "/v1/completions": (Completion, Completion),
    "/v1/responses": (Response, ResponseStreamEvent),
    "/v1/messages": (anthropic_types.Message, anthropic_types.RawMessageStreamEvent),
    "/v1/messages/count_tokens": (anthropic_types.MessageTokensCount, None),
    "/v1/embeddings": (CreateEmbeddingResponse, None),
}
"""What the official packages parse: an answer, and an event of a stream."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Under the recorded model's name, with its chat template and room for the longest recording."""
    folder = write_tiny_moe(tmp_path_factory.mktemp("tiny-moe"), context=32_768)
    engine = tiny_engine(folder, kv_cache_bytes=16 << 20)
    with live(engine, MODEL, chat_template=str(TEMPLATE), allowed_hosts="*") as started:
        yield started


def short(body: Any) -> Any:
    """The same request, satisfied with a few tokens: the tiny model would go on at random."""
    if not isinstance(body, dict):
        return body
    lengths = {name: ANSWER_TOKENS for name in LENGTH_FIELDS if body.get(name) is not None}
    if not lengths and ("messages" in body or "prompt" in body):
        lengths = {"max_tokens": ANSWER_TOKENS}
    elif not lengths and "input" in body and "encoding_format" not in body:
        lengths = {"max_output_tokens": ANSWER_TOKENS}
    return {**body, **lengths, **({"prompt": own_ids(body["prompt"])} if "prompt" in body else {})}


def own_ids(prompt: Any) -> Any:
    """Token ids of the recorded model as some of the tiny one."""
    if isinstance(prompt, list):
        return [own_ids(item) for item in prompt]
    return prompt % BYTES if isinstance(prompt, int) else prompt


def with_ids_of(answer: str, body: Any) -> Any:
    """References to stored responses and items, as recorded, led to those of the last answer here."""
    found = {kind: re.findall(rf'"id":\s*"({kind}_[0-9a-f]+)"', answer) for kind in ("resp", "msg", "rs", "fc")}
    text = re.sub(REFERENCE, lambda match: match[1] + (found[match[2]] or [match[0]])[-1] + '"', json.dumps(body))
    return json.loads(text)


def parse(path: str, answer: httpx.Response) -> None:
    """Raises where the official package could not read it."""
    whole, event = TYPES.get(path, (None, None))
    if answer.headers["content-type"].startswith("text/event-stream"):
        data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
        events = [item for item in data if item != "[DONE]"]
        assert events
        for item in events:
            if event is Completion:  # null until the end, as OpenAI says it and its types do not
                item = item.replace('"finish_reason":null', '"finish_reason":"stop"')
            TypeAdapter(event).validate_json(item)
    elif whole is CreateEmbeddingResponse:
        assert all(vector["embedding"] for vector in answer.json()["data"])  # numbers, or base64 where asked for
    elif whole is not None:
        # The first token of a prompt has no likelihood: null, as OpenAI says it and its types do not.
        TypeAdapter(whole).validate_json(re.sub(rb'_logprobs":\[null,', b'_logprobs":[', answer.content))
    elif answer.headers["content-type"].startswith("application/json"):
        assert isinstance(answer.json(), dict)


@pytest.mark.parametrize("file", RECORDINGS, ids=lambda file: file.stem)
def test_recording_is_answered(server: Live, file: Path) -> None:
    last_response = ""
    for request in json.loads(file.read_text()):
        headers = {name: value for name, value in request["headers"].items() if value != "***"}
        method, path = request["method"], request["path"]
        body = with_ids_of(last_response, short(request["body"])) if "body" in request else None
        answer = server.client.request(method, path, headers=headers, json=body)
        assert answer.status_code == 200, f"{method} {path}: {answer.text}"
        if path == "/v1/responses":
            last_response = answer.text
        if method != "HEAD":
            parse(path.split("?")[0], answer)
