"""What reaches the port as bytes: HTTP/1.0, compressed bodies, other types and encodings, what is no HTTP at all."""

import gzip
import http.client
import json
import logging
import socket
import zlib
from typing import Any

import pytest

from deepseek.server.connection import Connection
from live_server import Live

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "temperature": 0}
PATH = "/v1/chat/completions"
HEAD = b"Host: localhost\r\nContent-Type: application/json\r\n"


def talk(server: Live, *parts: bytes) -> bytes:
    """Everything that the server says until it closes the connection."""
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=60) as connection:
        for part in parts:
            connection.sendall(part)
        said = b""
        while piece := connection.recv(65536):
            said += piece
    return said


def send(server: Live, body: bytes, **headers: str) -> tuple[int, str]:
    """The status, and the message of an error."""
    connection = http.client.HTTPConnection("127.0.0.1", int(server.url.rpartition(":")[2]), timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", PATH, body, {"Content-Type": "application/json", **named})
    response = connection.getresponse()
    told = json.loads(response.read())
    connection.close()
    return response.status, told["error"]["message"] if "error" in told else ""


def error_of(said: bytes) -> tuple[int, dict[str, Any], bytes]:
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"], head.lower()


@pytest.mark.parametrize("stream", [False, True])
def test_http_1_0_knows_no_chunks(tiny: Live, stream: bool) -> None:
    body = json.dumps({**CHAT, "stream": stream}).encode()
    said = talk(tiny, b"POST %s HTTP/1.0\r\n%sContent-Length: %d\r\n\r\n%s" % (PATH.encode(), HEAD, len(body), body))
    head, _, rest = said.partition(b"\r\n\r\n")
    assert head.split()[1] == b"200"
    assert b"chunked" not in head.lower()
    assert b"connection: close" in head.lower()
    if stream:
        assert rest.startswith(b"data: {")
        assert rest.endswith(b"data: [DONE]\n\n")
    else:
        assert json.loads(rest)["object"] == "chat.completion"


def test_http_1_0_needs_no_host(tiny: Live) -> None:
    assert talk(tiny, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("coding", "compress"), [
    ("gzip", gzip.compress), ("x-gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress),
    ("deflate", lambda data: zlib.compress(data, wbits=-15)), ("identity", lambda data: data),
    ("gzip", lambda data: gzip.compress(data[:10]) + gzip.compress(data[10:])),
])  # fmt: skip
def test_compressed_bodies(tiny: Live, coding: str, compress: Any) -> None:
    assert send(tiny, compress(json.dumps(CHAT).encode()), Content_Encoding=coding) == (200, "")
    padded = json.dumps(CHAT).encode() + b" " * 1_000_000
    assert send(tiny, compress(padded), Content_Encoding=coding) == (200, "")


@pytest.mark.parametrize(
    ("coding", "body", "status", "message"),
    [
        ("br", b"x", 415, "Content-Encoding br is not supported"),
        ("zstd", b"x", 415, "send gzip, deflate or no compression"),
        ("gzip, gzip", b"x", 415, "gzip, gzip is not supported"),
        ("identity", gzip.compress(b"{}"), 400, "send the header Content-Encoding: gzip"),
        ("gzip", b"{}", 400, "cannot be decompressed as gzip"),
        ("gzip", gzip.compress(b'{"a": "' + b"b" * 1000)[:-9], 400, "ends early"),
        ("deflate", b"\xff\xff\xff", 400, "cannot be decompressed as deflate"),
        ("gzip", gzip.compress(b" " * 20_000_000), 413, "longer than 16,777,216 bytes"),
    ],
)
def test_compressed_bodies_that_are_refused(tiny: Live, coding: str, body: bytes, status: int, message: str) -> None:
    got, told = send(tiny, body, Content_Encoding=coding)
    assert got == status
    assert message in told


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "text/plain",
        "text/plain;charset=UTF-8",
        "",
        "application/json; charset=utf-8",
    ],
)
def test_json_under_another_type(tiny: Live, content_type: str) -> None:
    assert send(tiny, json.dumps(CHAT).encode(), Content_Type=content_type) == (200, "")


def test_a_form_is_told_that_it_is_one(tiny: Live) -> None:
    status, message = send(tiny, b"model=tiny&prompt=hi", Content_Type="application/x-www-form-urlencoded")
    assert status == 400
    assert "not valid JSON" in message
    assert "application/x-www-form-urlencoded" in message


def test_a_strangers_page_cannot_post_without_asking(tiny: Live) -> None:
    """The type text/plain needs no preflight; the page's Origin comes with it all the same."""
    body = json.dumps(CHAT).encode()
    assert send(tiny, body, Content_Type="text/plain", Origin="https://evil.example")[0] == 403


def test_encodings(tiny: Live) -> None:
    body = json.dumps(CHAT)
    assert send(tiny, body.encode("utf-8-sig")) == (200, "")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        status, message = send(tiny, body.encode(encoding))
        assert status == 400
        assert "send UTF-8" in message


def test_expect_continue(tiny: Live) -> None:
    body = json.dumps(CHAT).encode()
    head = b"POST %s HTTP/1.1\r\n%sConnection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(tiny.url.rpartition(":")[2])), timeout=60) as connection:
        connection.sendall(head % (PATH.encode(), HEAD, len(body)))
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n")
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    refused = talk(tiny, head % (PATH.encode(), HEAD, 10**9))
    assert refused.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("split", [False, True])
def test_an_offer_to_go_on_with_http_2_keeps_the_body(tiny: Live, split: bool, chunked: bool) -> None:
    """Java's client sends it with each request, see github.com/Kludex/uvicorn/issues/2722."""
    body = json.dumps(CHAT).encode()
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\n"
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    head = b"POST %s HTTP/1.1\r\n%s%s%s\r\n\r\n" % (PATH.encode(), HEAD, offer, length)
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    said = talk(tiny, head, body, last) if split else talk(tiny, head + body + last)
    assert said.count(b"HTTP/1.1 200") == 2
    assert b"chat.completion" in said
    plain = talk(tiny, b"GET /health HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % offer + last)
    assert plain.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500, 400, "use http://"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "let the client speak HTTP/1.1"),
        (b"nonsense\r\n\r\n", 400, "not valid HTTP"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "not valid HTTP",
        ),
        (
            b"POST %s HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\nxyz\r\n" % (PATH.encode(), HEAD),
            400,
            "not valid HTTP",
        ),
        (b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 40_000), 414, "32,768 bytes"),
        (b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 100_000), 414, "bytes here"),
        (b"GET / HTTP/1.1\r\n" + b"X-Header: aaaaaaaaaaaaaaaa\r\n" * 4_000, 431, "headers"),
        (b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", 405, "not a proxy"),
    ],
)
def test_what_is_no_http(tiny: Live, data: bytes, status: int, message: str, caplog: pytest.LogCaptureFixture) -> None:
    Connection._logged_at = float("-inf")
    with caplog.at_level(logging.WARNING, "deepseek.server"):
        got, error, head = error_of(talk(tiny, data))
    assert got == status
    assert message in error["message"]
    assert b"content-type: application/json" in head
    request_id = head.partition(b"x-request-id: ")[2].split(b"\r\n")[0].decode()
    assert any(request_id in line and error["message"] in line for line in caplog.messages)
    assert tiny.client.get("/health").status_code == 200


def test_two_hosts_are_refused(tiny: Live) -> None:
    said = talk(tiny, b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: other\r\nConnection: close\r\n\r\n")
    status, error, _ = error_of(said)
    assert status == 400
    assert "two Host headers" in error["message"]


def test_request_ids_of_messages_have_anthropics_name(tiny: Live) -> None:
    body = {"model": "tiny", "max_tokens": 1, "messages": CHAT["messages"]}
    for answer in (tiny.post("/v1/messages", body), tiny.post("/v1/messages", {**body, "max_tokens": 0})):
        assert answer.headers["request-id"] == answer.headers["x-request-id"]
    assert "request-id" not in tiny.client.get("/health").headers


def test_trailers_are_no_headers(tiny: Live) -> None:
    """What stands behind a chunked body passed no check of a proxy, and must not add to the headers or change them."""
    body = json.dumps(CHAT).encode()
    chunks = b"%x\r\n%s\r\n0\r\nHost: evil.example\r\nOrigin: https://evil.example\r\n\r\n" % (len(body), body)
    head = b"POST %s HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" % (PATH.encode(), HEAD)
    assert talk(tiny, head + chunks).startswith(b"HTTP/1.1 200")
