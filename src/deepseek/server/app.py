"""The application: routes, errors and the gate around them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from deepseek import __version__
from deepseek.engine.core import EngineFailure
from deepseek.errors import DeepseekError
from deepseek.server.errors import ApiError, as_api_error, envelope_of
from deepseek.server.protocol import answers as out
from deepseek.server.routes import chat, health
from deepseek.server.service import Service

if TYPE_CHECKING:
    from deepseek.engine.engine import Engine
    from deepseek.server.server_config import ServerConfig


def build_app(config: "ServerConfig", engine: "Engine", model_name: str) -> FastAPI:
    """The application for one engine, which it closes at the end."""
    service = Service(config, engine, model_name)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()
        engine.close()

    app = FastAPI(title="deepseek", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    for router in (health.router, chat.router):
        app.include_router(router)
    for kind in (HTTPException, RequestValidationError, DeepseekError, EngineFailure):
        app.add_exception_handler(kind, _answer_error)
    return app


async def _answer_error(request: Request, error: Exception) -> Response:
    return error_response(request.url.path, _told(error))


def _told(error: Exception) -> ApiError:
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"] if part != "body")
        return ApiError(400, f"{param}: {first['msg']}", param=param)
    if isinstance(error, HTTPException) and not isinstance(error, ApiError):
        return ApiError(error.status_code, str(error.detail), headers=error.headers)
    return as_api_error(error)


def error_response(path: str, error: ApiError) -> Response:
    return Response(
        out.encode(envelope_of(path)(error)), error.status_code, dict(error.headers or {}), "application/json"
    )
