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
from pydantic import BaseModel
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
from deepseek.server.protocol.refusals import refusal
from deepseek.server.routes import (
    batches,
    chat,
    completions,
    embeddings,
    files,
    health,
    messages,
    models,
    ranking,
    responses,
    status,
    studio,
    tokens,
    training,
)
from deepseek.server.service import Service
from deepseek.server.strict_json import report_ignored
from deepseek.server.warm_up import warm_up

if TYPE_CHECKING:
    from deepseek.engine.engine import Engine
    from deepseek.server.server_config import ServerConfig

ROUTERS = (
    health.router, models.router, chat.router, completions.router, messages.router, responses.router, embeddings.router,
    ranking.router, tokens.router, status.router, studio.router, files.router, batches.router,
    training.router,
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
    app.add_middleware(Gate, config=config, keys=keys, log=log, metrics=service.metrics)
    return app


async def _answer_error(request: Request, error: Exception) -> Response:
    service: Service = request.app.state.service
    if isinstance(error, RequestValidationError):
        told = refusal(error.errors(), body_model(request.scope.get("route")))
    elif isinstance(error, HTTPException) and not isinstance(error, ApiError):
        told = ApiError(error.status_code, _plain(error, request), headers=error.headers)
    else:
        told = as_api_error(error, retry_after=service.retry_after())
    request.scope[RECORD].error = told.code or told.kind
    if told.status_code >= 500 and not isinstance(error, HTTPException):
        _log.error("request %s failed", request.scope[RECORD].request_id, exc_info=error)
    path: str = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    response = error_response(path, told)
    report_ignored(request, response)
    return response


def _plain(error: HTTPException, request: Request) -> str:
    if error.status_code == 404:
        return f"there is nothing at {request.scope['path']!r:.200}; GET /openapi.json lists what there is"
    if error.status_code == 405:
        return f"{request.method} is not possible here"
    return str(error.detail)


def body_model(route: Any) -> type[BaseModel] | None:
    """What a route's body is read into."""
    field = getattr(route, "body_field", None)
    kind = getattr(getattr(field, "field_info", None), "annotation", None)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
