"""GET /v1/models: what is served, as OpenAI tells it, or as Anthropic does where the client asks in its dialect."""

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from deepseek.server.routes.shared import json_response, new_router, serving
from deepseek.server.service import Service

router = new_router("models")
ANTHROPIC_VERSION = "anthropic-version"


@router.get("/v1/models")
async def models(request: Request) -> Response:
    """All names under which the model is served."""
    service = serving(request)
    names = service.model_names
    if ANTHROPIC_VERSION in request.headers:
        page = {"data": [_anthropic_card(service, name) for name in names], "has_more": False}
        return json_response({**page, "first_id": names[0], "last_id": names[-1]})
    return json_response({"object": "list", "data": [_card(service, name) for name in names]})


@router.get("/v1/models/{name:path}")
async def model(name: str, request: Request) -> Response:
    """One of them."""
    service = serving(request)
    card = _anthropic_card if ANTHROPIC_VERSION in request.headers else _card
    return json_response(card(service, service.check_model(name)))


def _card(service: Service, name: str) -> dict[str, Any]:
    """experts: its layers with experts and how many there are; null for a dense model. meta: as llama.cpp tells it."""
    config = service.engine.model_config
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "deepseek-framework",
        "root": service.model_names[0],
        "parent": None,
        "max_model_len": service.engine.max_model_len,
        "meta": {
            "n_vocab": config.vocab_size,
            "n_ctx": service.engine.max_model_len,
            "n_ctx_train": config.max_position_embeddings,
            "n_embd": config.hidden_size,
        },
        "experts": expert_shape(service),
        "reasoning_parser": service.parsers.reasoning,
        "tool_call_parser": service.parsers.tools,
    }


def _anthropic_card(service: Service, name: str) -> dict[str, Any]:
    created = datetime.fromtimestamp(service.created, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    length = service.engine.max_model_len
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": created,
        "max_input_tokens": length - 1,
        "max_tokens": length,
    }


def expert_shape(service: Service) -> dict[str, Any] | None:
    moe = service.engine.model_config.moe
    if moe is None or not service.engine.expert_layers:
        return None
    return {
        "layers": list(service.engine.expert_layers),
        "n_routed_experts": moe.n_routed_experts,
        "num_experts_per_tok": moe.num_experts_per_tok,
        "n_shared_experts": moe.n_shared_experts,
    }
