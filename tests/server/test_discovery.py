"""What clients ask a server before they use it: its models in both dialects, its context, its tokenizer."""

from datetime import datetime

import anthropic
from openai import OpenAI

from deepseek import __version__
from live_server import SPECIALS, TEMPLATE, Live


def test_anthropics_client_lists_models(tiny: Live) -> None:
    client = anthropic.Anthropic(base_url=tiny.url, api_key="none")
    (card,) = client.models.list().data
    assert (card.id, card.type, card.display_name) == ("tiny", "model", "tiny")
    assert isinstance(card.created_at, datetime)
    assert card.max_input_tokens == tiny.engine.max_model_len - 1
    assert client.models.retrieve("tiny") == card
    raw = client.models.with_raw_response.list()
    assert raw.headers["request-id"]
    message = client.messages.create(model="tiny", max_tokens=1, messages=[{"role": "user", "content": "hi"}])
    assert message._request_id


def test_openais_client_lists_models(tiny: Live) -> None:
    client = OpenAI(base_url=tiny.url, api_key="none")  # without /v1, as many write it
    assert [card.id for card in client.models.list()] == ["tiny"]
    card = tiny.client.get("/v1/models/tiny").json()
    assert card["meta"] == {"n_vocab": 264, "n_ctx": card["max_model_len"], "n_ctx_train": 2048, "n_embd": 32}


def test_names_with_slashes(tiny: Live) -> None:
    service = tiny.service
    before = service.model_names
    service.model_names = ("deepseek-ai/Tiny:v1/x",)
    try:
        for path in (
            "/v1/models/deepseek-ai/Tiny:v1/x",
            "/v1/models/deepseek-ai%2FTiny%3Av1%2Fx",
            "/models/deepseek-ai/Tiny:v1/x",
        ):
            assert tiny.client.get(path).json()["id"] == "deepseek-ai/Tiny:v1/x"
    finally:
        service.model_names = before


def test_what_tools_of_other_servers_ask(tiny: Live) -> None:
    props = tiny.client.get("/v1/props").json()
    assert props["default_generation_settings"]["n_ctx"] == tiny.engine.max_model_len
    assert props["chat_template"] == TEMPLATE
    assert props["eos_token"] == SPECIALS[0]
    info = tiny.client.get("/tokenizer_info").json()
    assert info["chat_template"] == TEMPLATE
    assert (info["eos_token"], info["bos_token"]) == (SPECIALS[0], None)
    assert info["added_tokens_decoder"]["256"] == {"content": "<|end|>", "special": True}
    assert tiny.client.get("/load").json() == {"server_load": 0}
    assert tiny.client.get("/v1/version").json() == {"version": __version__}
    missing = tiny.client.get("/api/tags")
    assert missing.status_code == 404
    assert "not Ollama's" in missing.json()["error"]["message"]
