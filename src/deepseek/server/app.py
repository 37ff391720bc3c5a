"""The application: routes, errors and the gate around them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from deepseek import __version__
from deepseek.engine.core import EngineFailure
from deepseek.errors import DeepseekError
from deepseek.server.access.access_log import AccessLog
from deepseek.server.access.keys import Keyring
from deepseek.server.batches.desk import Desk
from deepseek.server.errors import ApiError, as_api_error, error_response
from deepseek.server.gate import RECORD, Gate
from deepseek.server.openapi_document import REFUSED, describe
from deepseek.server.paths import Paths
from deepseek.server.protocol.refusals import refusal
from deepseek.server.routes import (
    batches,
    chat,
    completions,
    discovery,
    embeddings,
    files,
    health,
    messages,
    models,
    ranking,
    response_inputs,
    responses,
    status,
    studio,
    tokens,
    training,
)
from deepseek.server.service import Service
from deepseek.server.strict_json import body_model, report_ignored
from deepseek.server.warm_up import warm_up

if TYPE_CHECKING:
    from deepseek.engine.engine import Engine
    from deepseek.server.server_config import ServerConfig

ROUTERS = (
    health.router, models.router, chat.router, completions.router, messages.router, responses.router, embeddings.router,
    ranking.router, tokens.router, status.router, studio.router, files.router, batches.router,
    training.router, discovery.router,
    response_inputs.router,
)  # fmt: skip
_log = logging.getLogger("deepseek.server")


def build_app(
    config: "ServerConfig",
    engine: "Engine",
    model_name: str,
    sampling_defaults: Mapping[str, Any] | None = None,
    model_folder: Path | None = None,
) -> FastAPI:
    """The application for one engine, which it closes at the end. sampling_defaults, model_folder: see Service."""
    service = Service(config, engine, model_name, sampling_defaults, model_folder)
    keys = Keyring(config.api_key, config.api_key_file)
    log = AccessLog() if config.access_log == "json" else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(warm_up, studio=config.studio)
        await desk.begin()
        yield
        await desk.close()
        service.close()
        engine.close()
        if log is not None:
            log.close()

    app = FastAPI(
        title="deepseek", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, responses=REFUSED,
        redirect_slashes=False,
        description="OpenAI's API with vLLM's extensions. Fields that are not listed are ignored; the answer's header "
        "x-ignored-fields names them.",
    )  # fmt: skip
    app.state.service = service
    paths = {route.path for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)}
    desk = app.state.desk = Desk(app, service, keys, paths)
    for router in ROUTERS:
        app.include_router(router)
    describe(app)
    for kind in (HTTPException, RequestValidationError, DeepseekError, EngineFailure):
        app.add_exception_handler(kind, _answer_error)
    app.state.paths = Paths([*app.routes, *(route for router in ROUTERS for route in router.routes)])
    app.add_middleware(Gate, config=config, keys=keys, log=log, metrics=service.metrics, paths=app.state.paths)
    return app


async def _answer_error(request: Request, error: Exception) -> Response:
    service: Service = request.app.state.service
    if isinstance(error, RequestValidationError):
        told = refusal(error.errors(), body_model(request.scope.get("route")))
    elif isinstance(error, HTTPException) and not isinstance(error, ApiError):
        told = _plain(error, request)
    else:
        told = as_api_error(error, retry_after=service.retry_after())
    request.scope[RECORD].error = told.code or told.kind
    if told.status_code >= 500 and not isinstance(error, HTTPException):
        _log.error("request %s failed", request.scope[RECORD].request_id, exc_info=error)
    path: str = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    response = error_response(path, told)
    report_ignored(request, response)
    return response


def _plain(error: HTTPException, request: Request) -> ApiError:
    """The framework's own errors: no such path, no such method, a form that cannot be read."""
    paths: Paths = request.app.state.paths
    path: str = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    if error.status_code == 405 and (methods := paths.methods(path)):
        possible = " or ".join(method for method in methods if method not in ("HEAD", "OPTIONS"))
        hint = f"{request.method} is not allowed at {path!r:.200}: use {possible}"
        return ApiError(405, hint, headers={"Allow": ", ".join(methods)})
    if error.status_code == 404:
        return ApiError(404, f"there is nothing at {path!r:.200}: {_where_else(paths, path)}", code="not_found")
    return ApiError(error.status_code, str(error.detail), headers=error.headers)


def _where_else(paths: Paths, path: str) -> str:
    if path.startswith("/api/"):
        return "this server speaks OpenAI's and Anthropic's APIs at /v1, not Ollama's at /api; use the base address /v1"
    if (similar := paths.similar(path)) is not None:
        return f"did you mean {similar}?"
    return "the API is at /v1, and GET /openapi.json describes it"
