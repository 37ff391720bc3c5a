"""HTTP connections: what is not HTTP is answered in words, and nobody holds one open with headers.

What uvicorn leaves to do: limits for headers, JSON for malformed requests, streams to HTTP/1.0 clients, and requests
that offer to go on with another protocol (Java's client offers HTTP/2 with each): the parser ends after the headers of
such a request, and its body would be lost (github.com/Kludex/uvicorn/issues/2722).
"""

import asyncio
import json
import logging
import secrets
import time
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEADER_SECONDS = 20.0
MAX_HEADER_BYTES = 64 * 1024
MAX_URL_BYTES = 32 * 1024
_LOG_SECONDS = 1.0
_TLS_HELLO = b"\x16\x03"
_UPGRADE_HEADERS = frozenset((b"upgrade", b"http2-settings", b"connection"))

_log = logging.getLogger("deepseek.server")


class Connection(HttpToolsProtocol):
    """uvicorn's, which waits for headers as long and takes as many as a client likes, with limits for both."""

    _header_bytes = 0
    _expects_headers = True
    _header_timer: asyncio.TimerHandle | None = None
    _offers_upgrade = False
    _logged_at = float("-inf")

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._expects_headers:
            self._header_bytes += len(data)
        self._feed(data)
        if self._expects_headers and self._header_bytes > MAX_HEADER_BYTES:
            self._refuse("431 Request Header Fields Too Large", f"headers end after {MAX_HEADER_BYTES:,} bytes here")

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse_malformed(data, error)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._header_timer is None:
            self._start_header_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Not those behind a chunked body: trailers must not pass for headers (RFC 9110, section 6.5.1)."""
        if self._expects_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_header_timer()
        self._expects_headers = False
        self._header_bytes = 0
        self._offers_upgrade = self.parser.should_upgrade()
        if self._offers_upgrade:
            return
        if len(self.url) > MAX_URL_BYTES:
            self._refuse("414 URI Too Long", f"an address has at most {MAX_URL_BYTES:,} bytes here")
            return
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0":
            self.cycle.__class__ = _UntilClose

    def on_message_complete(self) -> None:
        self._expects_headers = True
        if not self._offers_upgrade:
            super().on_message_complete()

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Read the request again as if it offered no other protocol; a server may ignore the offer."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse("405 Method Not Allowed", "this server is not a proxy: CONNECT is not possible")
            return
        version = self.parser.get_http_version().encode()
        close = any(name == b"connection" and b"close" in value.lower() for name, value in self.headers)
        kept = [(name, value) for name, value in self.headers if name not in _UPGRADE_HEADERS]
        kept.append((b"connection", b"close" if close else b"keep-alive"))
        head = b"".join(b"%s: %s\r\n" % header for header in kept)
        self._offers_upgrade = False
        self._expects_headers = True
        self.parser = httptools.HttpRequestParser(self)
        self._feed(b"%s %s HTTP/%s\r\n%s\r\n%s" % (method, self.url, version, head, rest))

    def _refuse_malformed(self, data: bytes, error: Exception) -> None:
        if self._expects_headers and data.startswith(_TLS_HELLO):
            what = "a TLS hello came to a port that speaks plain HTTP"
            hint = "use http:// in the client's address, or start the server with --ssl-keyfile and --ssl-certfile"
        elif self._expects_headers and data.startswith(b"PRI * HTTP/2"):
            what, hint = "HTTP/2 without TLS came to a port that speaks HTTP/1.1", "let the client speak HTTP/1.1"
        else:
            what, hint = f"the request is not valid HTTP: {error!s:.200}", "correct the client"
        self._refuse("400 Bad Request", f"{what}: {hint}")

    def _start_header_timer(self) -> None:
        self._header_timer = self.loop.call_later(
            HEADER_SECONDS, self._refuse, "408 Request Timeout", f"headers did not come within {HEADER_SECONDS:g} s"
        )

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _refuse(self, status: str, message: str) -> None:
        """End the connection; with an answer, unless another one is under way."""
        if self.transport.is_closing():
            return
        request_id = secrets.token_hex(16)
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            error = {"message": message, "type": "invalid_request_error", "param": None, "code": "http"}
            body = json.dumps({"error": error}).encode()
            self.transport.write(
                b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %s\r\n"
                b"connection: close\r\n\r\n%s" % (status.encode(), len(body), request_id.encode(), body)
            )
        self.transport.close()
        self._tell(f"request {request_id} of {self.client[0] if self.client else 'a client'} was refused: {message}")

    @classmethod
    def _tell(cls, line: str) -> None:
        """A line in the log, but not thousands."""
        now = time.monotonic()
        if now - Connection._logged_at >= _LOG_SECONDS:
            Connection._logged_at = now
            _log.warning("%s", line)


class _UntilClose(RequestResponseCycle):
    """An answer to an HTTP/1.0 client, which knows no chunks: one of unknown length ends with the connection."""

    _has_length = True

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._has_length = any(name.lower() == b"content-length" for name, _ in message["headers"])
            if not self._has_length:
                self.chunked_encoding = False
        elif not self._has_length:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)
