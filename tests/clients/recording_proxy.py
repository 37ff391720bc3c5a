"""A proxy between a client and the server that keeps what passes: requests with bodies, the beginning of answers.

It changes one thing, where a driver asks for it (PUT /force-tool/NAME): the next request that offers this tool gets a
tool_choice of it, so that an agent makes its round with a call and its result also where a small model would not call.
"""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

MAX_ANSWER = 20_000
HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length"
}  # fmt: skip
"""Headers of one connection (RFC 9110, 7.6.1), and the length, which http.client counts itself."""
SECRET_HEADERS = {"authorization", "x-api-key", "api-key", "cookie"}


@dataclass
class Exchange:
    """A request and what became of it. body: JSON where it is JSON, else text. status 0: the server gave no answer."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any = None
    status: int = 0
    answer_headers: dict[str, str] = field(default_factory=dict)
    answer: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Recording:
    """url: what the client takes for the server. elsewhere: hosts that it tried to reach through the proxy."""

    url: str
    exchanges: list[Exchange] = field(default_factory=list)
    elsewhere: set[str] = field(default_factory=set)
    to_force: str | None = None


def masked(headers: dict[str, str]) -> dict[str, str]:
    """Header names in lower case, with secrets hidden."""
    lower = {name.lower(): value for name, value in headers.items()}
    return {name: "***" if name in SECRET_HEADERS else value for name, value in lower.items()}


FORCE_PATH = "/force-tool/"


def forced(path: str, body: Any, tool: str | None) -> dict[str, Any] | None:
    """The body with a tool_choice of this tool, in the words of the route; None where it does not offer the tool."""
    tools = body.get("tools") if isinstance(body, dict) else None
    if tool is None or tool not in [each.get("function", each).get("name") for each in tools or []]:
        return None
    if "/messages" in path:
        return {**body, "tool_choice": {"type": "tool", "name": tool}}
    named = {"name": tool} if "/responses" in path else {"function": {"name": tool}}
    return {**body, "tool_choice": {"type": "function", **named}}


def _decoded(body: bytes) -> Any:
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


@contextmanager
def recording(upstream: str) -> Iterator[Recording]:
    """Passes everything on to upstream (http://host:port) until the block ends. Other hosts are refused."""
    target = urlsplit(upstream)
    assert target.hostname is not None

    class Handler(_Handler):
        host, port = target.hostname, target.port

    server = _Server(("127.0.0.1", 0), Handler)
    kept = Recording(f"http://127.0.0.1:{server.server_address[1]}")
    Handler.kept = kept
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a client that hung up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host: str | None
    port: int | None
    kept: Recording

    def do_GET(self) -> None:
        if self.path.startswith("http"):
            self._refuse(urlsplit(self.path).netloc)
            return
        body = self._body()
        if self.path.startswith(FORCE_PATH):
            self.kept.to_force = self.path.removeprefix(FORCE_PATH)
            self.send_response(204)
            self.end_headers()
            return
        exchange = Exchange(self.command, self.path, masked(dict(self.headers.items())), _decoded(body))
        self.kept.exchanges.append(exchange)
        if (changed := forced(self.path, exchange.body, self.kept.to_force)) is not None:
            self.kept.to_force, body = None, json.dumps(changed).encode()
        connection = http.client.HTTPConnection(self.host or "", self.port, timeout=600)
        try:
            connection.request(self.command, self.path, body or None, self._passed_on(body))
            self._relay(connection.getresponse(), exchange)
        except (ConnectionError, http.client.HTTPException):  # one of the two hung up
            self.close_connection = True
        finally:
            connection.close()

    do_POST = do_HEAD = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = do_GET

    def do_CONNECT(self) -> None:
        self._refuse(self.path)

    def _refuse(self, host: str) -> None:
        self.kept.elsewhere.add(host)
        self.close_connection = True
        self.send_error(403, "Only the local server is reachable")

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("transfer-encoding", "").lower():
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _passed_on(self, body: bytes) -> dict[str, str]:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        return {**headers, "content-length": str(len(body))} if body or self.command == "POST" else headers

    def _relay(self, answer: http.client.HTTPResponse, exchange: Exchange) -> None:
        exchange.status = answer.status
        exchange.answer_headers = {name.lower(): value for name, value in answer.getheaders()}
        bodiless = self.command == "HEAD" or answer.status in (204, 304)
        length = exchange.answer_headers.get("content-length")
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {*HOP_BY_HOP, "date", "server"}:
                self.send_header(name, value)
        if length is not None:
            self.send_header("content-length", length)
        elif not bodiless:
            self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        if not bodiless:
            self._relay_body(answer, exchange, chunked=length is None)

    def _relay_body(self, answer: http.client.HTTPResponse, exchange: Exchange, *, chunked: bool) -> None:
        while part := answer.read1(65_536):
            if len(exchange.answer) < MAX_ANSWER:
                exchange.answer += part.decode(errors="replace")
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
            self.wfile.flush()
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the exchanges are kept."""
