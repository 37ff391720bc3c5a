"""What every request passes before its route, and every answer on its way out.

A request id; the route that is meant; Host and Origin; HEAD and OPTIONS; the API key and what it may use; the body; an
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
from deepseek.server.access.memory_return import MemoryReturn
from deepseek.server.access.origins import Origins
from deepseek.server.errors import ApiError, as_api_error, error_response
from deepseek.server.paths import Paths
from deepseek.server.request_body import BodyLimit, Decompressed, whole_body

if TYPE_CHECKING:
    from deepseek.server.metrics import Metrics
    from deepseek.server.server_config import ServerConfig

RECORD = "deepseek.record"
KEY = "deepseek.key"
PRIORITY = "deepseek.priority"
"""Where a request's RequestRecord and ApiKey lie in its ASGI scope, and the priority that it cannot choose itself."""

_log = logging.getLogger("deepseek.server")
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_OPEN = frozenset(("/health", "/healthz", "/livez", "/ping", "/ready", "/readyz", "/"))
_OPEN_BELOW = ("/studio/",)
_QUIET = _OPEN | {"/metrics", "/load", "/v1/server/status", "/v1/training/runs"}
_ANTHROPIC = "/v1/messages"
_FILES = "/v1/files"
_FORM_BYTES = 64 * 1024  # of a form, beside the file in it
_HEADER_NAMES = re.compile(r"[A-Za-z0-9, _-]{0,4000}")


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        config: "ServerConfig",
        keys: Keyring,
        log: AccessLog | None,
        metrics: "Metrics",
        paths: Paths,
    ) -> None:
        self._app = app
        self._paths = paths
        self._metrics = metrics
        self._config = config
        self._keys = keys
        self._log = log
        self._reserve = MemoryReserve()
        self._memory = MemoryReturn()
        self._origins = Origins(config.host, config.allowed_hosts, config.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or RECORD in scope:  # a request from within has passed: no client can set this
            await self._app(scope, receive, send)
            return
        path = self._find_path(scope)
        begun = time.monotonic()
        headers = Headers(scope=scope)
        given_id = headers.get("x-request-id", "")
        request_id = given_id if _ID.fullmatch(given_id) else secrets.token_hex(16)
        client = scope.get("client")
        record = RequestRecord(request_id, client[0] if client else "", scope["method"], scope["path"][:200])
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # the connection knows that it was HEAD, and leaves the body out
        scope[RECORD] = record
        try:
            await self._pass(scope, path, headers, receive, Sender(send, record, headers, path))
        except asyncio.CancelledError:
            record.status = record.status or 499
            raise
        finally:
            if record.status == 429:
                self._metrics.rejected.inc()
            record.seconds = round(time.monotonic() - begun, 4)
            if self._log is not None and not (path in _QUIET and record.status == 200):
                self._log.write(record)

    def _find_path(self, scope: Scope) -> str:
        """The path of the route that is meant, without the root path. It is put into the scope."""
        root = self._config.root_path
        if root and scope["path"].startswith(f"{root}{root}/"):  # a proxy before us may take the root path away or not
            scope["path"] = scope["path"].removeprefix(root)
            scope["raw_path"] = scope["raw_path"].removeprefix(root.encode())
        path = self._paths.resolve(scope["path"].removeprefix(root))
        scope["path"] = root + path
        return path

    async def _pass(self, scope: Scope, path: str, headers: Headers, receive: Receive, send: "Sender") -> None:
        key: ApiKey | None = None
        body: BodyLimit | Decompressed | None = None
        record: RequestRecord = scope[RECORD]
        try:
            self._check_origin(scope, headers, send)
            if scope["method"] == "OPTIONS":
                await self._options(path, headers)(scope, receive, send)
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
            body = whole_body(receive, self._config, headers, most)
            await self._app(scope, body, send)
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
            self._memory.after(0 if body is None else body.length)
            if key is not None:
                key.quota.leave(record.prompt_tokens - record.cached_tokens + record.generated_tokens)

    def _check_origin(self, scope: Scope, headers: Headers, send: "Sender") -> None:
        """A key makes the check of Host superfluous: no page of a stranger knows it, whatever name it came by."""
        if not len(self._keys):
            self._origins.check_host(headers.getlist("host"), scope["http_version"])
        origin = headers.get("origin")
        if self._origins.check_origin(origin, headers.get("host", "")):
            send.allow(origin or "")

    def _options(self, path: str, headers: Headers) -> Response:
        """What may be done at a path; for browsers, whether a page may do it."""
        methods = self._paths.methods(path) or (["GET", "OPTIONS", "POST"] if path == "*" else [])
        if "access-control-request-method" in headers:
            return _preflight(headers)
        if not methods:
            raise ApiError(404, f"there is nothing at {path!r:.200}")
        return Response(headers={"Allow": ", ".join(methods)})

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


class Sender:
    """`send` that adds what every answer carries, and remembers its status."""

    def __init__(self, send: Send, record: RequestRecord, headers: Headers, path: str) -> None:
        self._send = send
        self._record = record
        self._headers = [
            (b"x-request-id", record.request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        if path.startswith(_ANTHROPIC) or "anthropic-version" in headers:
            self._headers.append((b"request-id", record.request_id.encode()))

    @property
    def has_begun(self) -> bool:
        return self._record.status != 0

    def allow(self, origin: str) -> None:
        """CORS: a page of this origin may read the answer."""
        self._headers += [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", b"x-request-id, request-id, retry-after, x-ignored-fields"),
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
    answer = Response(
        headers={
            "access-control-allow-methods": "GET, HEAD, OPTIONS, POST, DELETE",
            "access-control-allow-headers": wanted if _HEADER_NAMES.fullmatch(wanted) else "",
            "access-control-max-age": "600",
        }
    )
    if headers.get("access-control-request-private-network") == "true":
        answer.headers["access-control-allow-private-network"] = "true"
    return answer
