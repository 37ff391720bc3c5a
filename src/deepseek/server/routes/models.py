"""GET /v1/models: what is served."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from deepseek.server.routes.shared import json_response, new_router, serving
from deepseek.server.service import Service

router = new_router("models")


@router.get("/v1/models")
async def models(request: Request) -> Response:
    """All names under which the model is served."""
    service = serving(request)
    return json_response({"object": "list", "data": [_card(service, name) for name in service.model_names]})


@router.get("/v1/models/{name:path}")
async def model(name: str, request: Request) -> Response:
    """One of them."""
    service = serving(request)
    return json_response(_card(service, service.check_model(name)))


def _card(service: Service, name: str) -> dict[str, Any]:
    """experts: its layers with experts and how many there are; null for a dense model."""
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "deepseek-framework",
        "root": service.model_names[0],
        "parent": None,
        "max_model_len": service.engine.max_model_len,
        "experts": expert_shape(service),
        "reasoning_parser": service.parsers.reasoning,
        "tool_call_parser": service.parsers.tools,
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
