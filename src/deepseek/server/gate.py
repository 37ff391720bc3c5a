"""What every request passes before its route, and every answer on its way out.

A request id; Host and Origin; the API key and what it may use; the length of the body and the time it may take; an
answer in the right envelope for every error; a line in the access log.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deepseek.server.access.access_log import AccessLog, RequestRecord
from deepseek.server.access.keys import ApiKey, Keyring
from deepseek.server.access.memory_reserve import MemoryReserve
from deepseek.server.access.origins import Origins
from deepseek.server.errors import ApiError, as_api_error, error_response

if TYPE_CHECKING:
    from deepseek.server.metrics import Metrics
    from deepseek.server.server_config import ServerConfig

RECORD = "deepseek.record"
KEY = "deepseek.key"
PRIORITY = "deepseek.priority"
"""Where a request's RequestRecord and ApiKey lie in its ASGI scope, and the priority that it cannot choose itself."""

_log = logging.getLogger("deepseek.server")
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_OPEN = frozenset(("/health", "/ready", "/"))
_OPEN_BELOW = ("/studio/",)
_QUIET = frozenset(("/health", "/ready", "/", "/metrics", "/v1/server/status", "/v1/training/runs"))
_FILES = "/v1/files"
_FORM_BYTES = 64 * 1024  # of a form, beside the file in it
_HEADER_NAMES = re.compile(r"[A-Za-z0-9, _-]{0,1000}")


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(
        self, app: ASGIApp, *, config: "ServerConfig", keys: Keyring, log: AccessLog | None, metrics: "Metrics"
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._config = config
        self._keys = keys
        self._log = log
        self._reserve = MemoryReserve()
        self._origins = Origins(config.host, config.allowed_hosts, config.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or RECORD in scope:  # a request from within has passed: no client can set this
            await self._app(scope, receive, send)
            return
        _leave_out_repetition(scope, self._config.root_path)
        begun = time.monotonic()
        headers = Headers(scope=scope)
        given_id = headers.get("x-request-id", "")
        request_id = given_id if _ID.fullmatch(given_id) else secrets.token_hex(16)
        client = scope.get("client")
        record = RequestRecord(request_id, client[0] if client else "", scope["method"], scope["path"][:200])
        scope[RECORD] = record
        try:
            await self._pass(scope, headers, receive, Sender(send, record))
        except asyncio.CancelledError:
            record.status = record.status or 499
            raise
        finally:
            if record.status == 429:
                self._metrics.rejected.inc()
            record.seconds = round(time.monotonic() - begun, 4)
            if self._log is not None and not (record.path in _QUIET and record.status == 200):
                self._log.write(record)

    async def _pass(self, scope: Scope, headers: Headers, receive: Receive, send: "Sender") -> None:
        key: ApiKey | None = None
        record: RequestRecord = scope[RECORD]
        path = scope["path"].removeprefix(self._config.root_path) if self._config.root_path else scope["path"]
        try:
            origin = headers.get("origin")
            if self._origins.check(headers.get("host"), origin):
                send.allow(origin or "")
                if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                    await _preflight(headers)(scope, receive, send)
                    return
            if len(self._keys) and path not in _OPEN and not path.startswith(_OPEN_BELOW):
                key = scope[KEY] = self._identified(headers, record)
                if scope["method"] == "POST":
                    key.quota.enter()
                else:
                    key = None
            if scope["method"] == "POST":
                self._reserve.check()
            most = self._config.max_file_bytes + _FORM_BYTES if path == _FILES else self._config.max_body_bytes
            limited = BodyLimit(receive, self._config, headers, most)
            await self._app(scope, limited, send)
        except Exception as error:
            told = as_api_error(error)
            if told.status_code == 503:  # not a bug: no traceback, of which there could be thousands
                _log.error("request %s was refused: %s", record.request_id, told.message)
            elif told is not error:
                _log.exception("request %s failed", record.request_id)
            if send.has_begun:
                raise
            record.error = told.code or told.kind
            await error_response(path, told)(scope, receive, send)
        finally:
            if key is not None:
                key.quota.leave(record.prompt_tokens - record.cached_tokens + record.generated_tokens)

    def _identified(self, headers: Headers, record: RequestRecord) -> ApiKey:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = self._keys.find(token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key"))
        if key is None:
            raise ApiError(
                401, "give a valid API key: `Authorization: Bearer KEY`", code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        record.key = key.name
        return key


def _leave_out_repetition(scope: Scope, root_path: str) -> None:
    """The root path stands once in a request's path, whether the proxy before us took it away or left it there."""
    if root_path and scope["path"].startswith(f"{root_path}{root_path}/"):
        scope["path"] = scope["path"].removeprefix(root_path)
        scope["raw_path"] = scope["raw_path"].removeprefix(root_path.encode())


class Sender:
    """`send` that adds what every answer carries, and remembers its status."""

    def __init__(self, send: Send, record: RequestRecord) -> None:
        self._send = send
        self._record = record
        self._headers = [
            (b"x-request-id", record.request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]

    @property
    def has_begun(self) -> bool:
        return self._record.status != 0

    def allow(self, origin: str) -> None:
        """CORS: a page of this origin may read the answer."""
        self._headers += [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", b"x-request-id, retry-after, x-ignored-fields"),
            (b"vary", b"Origin"),
        ]

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._record.status = message["status"]
            message["headers"] = [*_without(message.get("headers", ()), b"x-content-type-options"), *self._headers]
        await self._send(message)


def _without(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> Iterable[tuple[bytes, bytes]]:
    return (header for header in headers if header[0] != name)


def _preflight(headers: Headers) -> Response:
    wanted = headers.get("access-control-request-headers", "")
    return Response(
        status_code=204,
        headers={
            "access-control-allow-methods": "GET, POST, DELETE",
            "access-control-allow-headers": wanted if _HEADER_NAMES.fullmatch(wanted) else "",
            "access-control-max-age": "600",
        },
    )


class BodyLimit:
    """`receive` that ends with an error when the body is too long or takes too long to come.

    most: bytes; where they are more than other bodies may have, there is as much more time for them as they come.
    """

    def __init__(self, receive: Receive, config: "ServerConfig", headers: Headers, most: int) -> None:
        self._receive = receive
        self._most = most
        self._seconds = config.body_seconds
        self._seconds_a_byte = config.body_seconds / config.max_body_bytes
        self._begun = time.monotonic()
        self._length = 0
        self._is_whole = False
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and len(announced) < 20:
            self._length = int(announced)
        self._check(self._length)
        self._length = 0

    async def __call__(self) -> Message:
        if self._is_whole:
            return await self._receive()
        try:
            until = self._begun + self._seconds + self._length * self._seconds_a_byte
            async with asyncio.timeout(until - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(
                408, f"the body did not come within {self._seconds:g} seconds", headers={"Connection": "close"}
            ) from None
        self._length += len(message.get("body", b""))
        self._check(self._length)
        self._is_whole = not message.get("more_body", False)
        return message

    def _check(self, length: int) -> None:
        if length > self._most:
            raise ApiError(
                413, f"the body is longer than {self._most:,} bytes: send less, or raise --max-body-bytes "
                "(for files --max-file-bytes)",
                headers={"Connection": "close"},
            )  # fmt: skip
