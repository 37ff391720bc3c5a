"""GET /health, /ready, /version, /metrics and /v1/models."""

from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import Response

from deepseek import __version__
from deepseek.server.errors import ApiError
from deepseek.server.routes.shared import json_response, serving
from deepseek.server.service import Service

router = APIRouter(tags=["server"])


@router.get("/health")
async def health(request: Request) -> Response:
    """200 while the engine lives; then restarting is the cure."""
    if serving(request).engine.load().broken:
        raise ApiError(503, "the engine has stopped after an error; restart the server", code="engine")
    return json_response({"status": "ok"})


@router.get("/ready")
async def ready(request: Request) -> Response:
    """200 while new requests are taken: not while the server is shutting down."""
    service = serving(request)
    service.check_open()
    return await health(request)


@router.get("/version")
async def version() -> Response:
    return json_response({"version": __version__})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(serving(request).metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)


@router.get("/v1/models")
async def models(request: Request) -> Response:
    service = serving(request)
    return json_response({"object": "list", "data": [_card(service, name) for name in service.model_names]})


@router.get("/v1/models/{name:path}")
async def model(name: str, request: Request) -> Response:
    service = serving(request)
    return json_response(_card(service, service.check_model(name)))


def _card(service: Service, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "deepseek-framework",
        "root": service.model_names[0],
        "max_model_len": service.engine.max_model_len,
    }
