"""Every refusal as one type, and the envelope it is told in."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from deepseek.engine.core import EngineFailure, QueueFull
from deepseek.errors import ContextLengthError, DeepseekError
from deepseek.server.exhaustion import exhausted

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    431: "request_too_large",
    503: "unavailable_error",
    504: "timeout_error",
}
_EXHAUSTED_SECONDS = 5.0
_FIELD = re.compile(r"([a-z_]+(?:\.[a-z_]+|\[\d+\])*) (?:must|names|cannot|needs?|holds|takes)\b")
_ENGINE_NAME = re.compile(r"^structured\b")  # what the API calls structured_outputs


class ApiError(HTTPException):
    """What a client is told. message: says the field and the mend; param: the field; code: for programs.

    retry_after: seconds after which trying again may help.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        extra = dict(headers or {})
        if retry_after is not None:
            extra["Retry-After"] = str(max(1, math.ceil(retry_after)))
        super().__init__(status, message, extra)
        self.message = message
        self.kind = _KINDS.get(status, "server_error")
        self.param = param
        self.code = code


Envelope = Callable[[ApiError], dict[str, Any]]


def openai_envelope(error: ApiError) -> dict[str, Any]:
    return {"error": {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}}


ENVELOPES: dict[str, Envelope] = {}
"""By the beginning of a path, for routes that speak another dialect than OpenAI's."""


def envelope_of(path: str) -> Envelope:
    """The envelope for errors of this path."""
    return next((envelope for start, envelope in ENVELOPES.items() if path.startswith(start)), openai_envelope)


def as_api_error(error: Exception, *, retry_after: float = 1.0) -> ApiError:
    """The same error as a client may see it: what it can mend in full, a fault of ours without particulars."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFull):
        return ApiError(429, str(error), code="queue_full", retry_after=retry_after)
    if not isinstance(error, DeepseekError) and (lack := out_of(error)) is not None:
        return lack
    if isinstance(error, EngineFailure):
        return ApiError(500, "the engine failed to carry out this request; the server's log says why", code="engine")
    if isinstance(error, ContextLengthError):
        return ApiError(400, str(error), code="context_length_exceeded")
    if isinstance(error, DeepseekError):
        message = _ENGINE_NAME.sub("structured_outputs", str(error))
        field = _FIELD.match(message)
        return ApiError(400, message, param=field[1] if field else None)
    return ApiError(500, "the server failed to carry out this request; its log says why", code="internal")


def out_of(error: Exception) -> ApiError | None:
    """The refusal of a request for which the machine has nothing left, if that is what the error comes of."""
    lack = exhausted(error)
    if lack is None:
        return None
    return ApiError(503, f"the server has run out of {lack}", code="exhausted", retry_after=_EXHAUSTED_SECONDS)


def error_response(path: str, error: ApiError) -> Response:
    """The error in the envelope of the API that this path belongs to."""
    body = msgspec.json.encode(envelope_of(path)(error))
    return Response(body, error.status_code, dict(error.headers or {}), "application/json")


def error_event(path: str, error: Exception) -> bytes:
    """The same within a stream that has begun; JSON."""
    return msgspec.json.encode(envelope_of(path)(as_api_error(error)))
