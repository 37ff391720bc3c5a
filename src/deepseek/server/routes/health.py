"""GET /health, /ready, /version, /load and /metrics, and the names that other servers' clients know them by."""

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from deepseek import __version__
from deepseek.server.errors import ApiError
from deepseek.server.routes.shared import json_response, new_router, serving

router = new_router("server")


@router.get("/health")
@router.get("/healthz", include_in_schema=False)
@router.get("/livez", include_in_schema=False)
@router.get("/ping", include_in_schema=False)
async def health(request: Request) -> Response:
    """200 while the engine lives; where it does not, a restart is the cure."""
    if serving(request).engine.load().broken:
        raise ApiError(503, "the engine has stopped after an error: restart the server", code="engine")
    return json_response({"status": "ok"})


@router.get("/ready")
@router.get("/readyz", include_in_schema=False)
async def ready(request: Request) -> Response:
    """200 while new requests are taken: not while the server shuts down."""
    serving(request).check_open()
    return await health(request)


@router.get("/version")
async def version() -> Response:
    """The server's version."""
    return json_response({"version": __version__})


@router.get("/load")
async def load(request: Request) -> Response:
    """How many requests are under way, as vLLM tells it."""
    now = serving(request).engine.load()
    return json_response({"server_load": now.running + now.waiting})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(serving(request).metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
