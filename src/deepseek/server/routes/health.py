"""GET /health, /ready, /version and /metrics."""

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from deepseek import __version__
from deepseek.server.errors import ApiError
from deepseek.server.routes.shared import json_response, new_router, serving

router = new_router("server")


@router.get("/health")
async def health(request: Request) -> Response:
    """200 while the engine lives; where it does not, a restart is the cure."""
    if serving(request).engine.load().broken:
        raise ApiError(503, "the engine has stopped after an error: restart the server", code="engine")
    return json_response({"status": "ok"})


@router.get("/ready")
async def ready(request: Request) -> Response:
    """200 while new requests are taken: not while the server shuts down."""
    serving(request).check_open()
    return await health(request)


@router.get("/version")
async def version() -> Response:
    """The server's version."""
    return json_response({"version": __version__})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(serving(request).metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
