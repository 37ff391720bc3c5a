"""The proxy keeps what passes and forces a tool where asked; a recording is short and says nothing of the machine."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from recording_proxy import Exchange, forced, masked, recording
from trim import MAX_BYTES, as_json, trimmed

FUNCTION = {"name": "read", "parameters": {"type": "object"}}


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that answers with the body it got, in chunks."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for part in (body[:5], body[5:]):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def send(url: str, body: Any, method: str = "POST", **headers: str) -> bytes:
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        data = answer.read()
    assert isinstance(data, bytes)
    return data


def test_what_passes_is_kept_with_secrets_hidden(echo: str) -> None:
    with recording(echo) as kept:
        answer = send(f"{kept.url}/v1/x", {"a": 1}, Authorization="Bearer secret")
    assert json.loads(answer) == {"a": 1}
    (exchange,) = kept.exchanges
    assert (exchange.method, exchange.path, exchange.body, exchange.status) == ("POST", "/v1/x", {"a": 1}, 200)
    assert exchange.answer == '{"a": 1}'
    assert exchange.headers["authorization"] == "***"


def test_a_server_that_is_gone_is_no_answer() -> None:
    with recording("http://127.0.0.1:9") as kept, pytest.raises(OSError, match=r"closed|reset|refused"):
        send(f"{kept.url}/v1/x", {})
    assert kept.exchanges[0].status == 0


def test_other_hosts_are_refused_and_named(echo: str) -> None:
    with recording(echo) as kept:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": kept.url}))
        with pytest.raises(urllib.error.HTTPError, match="403"):
            opener.open("http://example.com/x")
    assert kept.elsewhere == {"example.com"}
    assert not kept.exchanges


def test_the_next_request_with_the_tool_is_made_to_call_it(echo: str) -> None:
    body = {"tools": [{"type": "function", "function": FUNCTION}]}
    with recording(echo) as kept:
        send(f"{kept.url}/force-tool/read", None, "PUT")
        answers = [json.loads(send(f"{kept.url}/v1/chat/completions", sent)) for sent in ({}, body, body)]
    assert [answer.get("tool_choice") for answer in answers] == [
        None,
        {"type": "function", "function": {"name": "read"}},
        None,
    ]
    assert kept.exchanges[1].body == body  # as the client sent it


def test_each_route_has_its_words_for_a_forced_tool() -> None:
    body = {"tools": [FUNCTION, {"type": "web_search"}]}
    assert forced("/v1/responses", body, "read") == {**body, "tool_choice": {"type": "function", "name": "read"}}
    assert forced("/v1/messages?beta=true", body, "read") == {**body, "tool_choice": {"type": "tool", "name": "read"}}
    assert forced("/v1/messages", body, "write") is None
    assert forced("/v1/messages", body, None) is None
    assert forced("/v1/models", None, "read") is None


def test_header_names_are_lower_and_keys_hidden() -> None:
    assert masked({"X-Api-Key": "secret", "Accept": "a"}) == {"x-api-key": "***", "accept": "a"}


def test_one_request_of_each_shape_is_kept_without_paths_and_ids() -> None:
    session = "01a22d9e-7f15-7fe2-bad1-ddab49df4276"
    bodies = [{"messages": [{"role": "user", "content": f"in /tmp/x/home, {n}, {session}"}]} for n in range(3)]
    bodies.append({**bodies[0], "stream": True})
    kept = trimmed(
        [Exchange("POST", "/v1/chat/completions", {"host": "h"}, body) for body in bodies], {"/tmp/x": "/home"}
    )
    assert [request["body"].get("stream") for request in kept] == [None, True]
    text = as_json(kept)
    assert "/home/home" in text
    assert "/tmp" not in text
    assert session not in text
    assert '"host"' not in text


def test_long_recordings_are_cut_where_that_changes_no_meaning() -> None:
    pattern, arguments = "[a-z]" * 100, json.dumps({"path": "p" * 300})
    tools = [{"type": "function", "name": f"t{n}", "description": "d" * 9000, "pattern": pattern} for n in range(40)]
    body = {"input": [{"type": "function_call", "arguments": arguments}, {"role": "user", "content": "c" * 90_000}]}
    (request,) = trimmed([Exchange("POST", "/v1/responses", {}, {**body, "tools": tools})], {})
    assert len(as_json([request]).encode()) <= MAX_BYTES
    assert request["body"]["input"][0]["arguments"] == arguments
    assert {tool["pattern"] for tool in request["body"]["tools"]} == {pattern}
    assert request["body"]["tools"][0]["description"].endswith("...")
