"""A client that costs little, for measuring servers from the same machine: raw bytes, searched but hardly parsed.

One connection a request, because servers differ in how long they keep one; the same for everybody.
"""

import asyncio
import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_FIRST = re.compile(rb'"text":|"content":"[^"]')  # chats begin with an event that has only a role
_DONE = b"data: [DONE]"
_TAIL = 4096  # bytes that hold the last event, which tells the usage


@dataclass(frozen=True, slots=True)
class Timed:
    """first: seconds from connecting to the first token's event, seconds: to the last. Tokens as the server counts."""

    first: float
    seconds: float
    prompt_tokens: int
    generated_tokens: int


class _Reader(asyncio.Protocol):
    def __init__(self, request: bytes) -> None:
        self._request = request
        self._said = b""
        self.first_at = 0.0
        self.ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._said = (self._said + data)[-_TAIL:]
        if not self.first_at and _FIRST.search(self._said):
            self.first_at = time.perf_counter()
        if _DONE in self._said and not self.ended.done():
            self.ended.set_result(self._said)
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(SystemExit(f"the server closed the connection ({error}): {self._said!r:.600}"))


def post(path: str, body: dict[str, Any]) -> bytes:
    """The bytes of a request for a stream that ends with its usage."""
    content = json.dumps({"stream": True, "stream_options": {"include_usage": True}, **body}).encode()
    return (
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(content), content)
    )


async def stream(port: int, request: bytes) -> Timed:
    """Send and read to the end. Raises SystemExit when anything but a whole answer comes."""
    begun = time.perf_counter()
    _, reader = await asyncio.get_running_loop().create_connection(lambda: _Reader(request), "127.0.0.1", port)
    tail = await reader.ended
    ended = time.perf_counter()
    usage, _ = json.JSONDecoder().raw_decode(tail.decode(errors="replace").rpartition('"usage":')[2].lstrip())
    return Timed(reader.first_at - begun, ended - begun, usage["prompt_tokens"], usage["completion_tokens"])


async def clients(port: int, requests: Iterable[bytes], count: int) -> list[Timed]:
    """`count` clients; each takes the next request when its last was answered. In the order of the ends."""
    left = iter(requests)
    answers: list[Timed] = []

    async def one() -> None:
        for request in left:
            answers.append(await stream(port, request))

    await asyncio.gather(*(one() for _ in range(count)))
    return answers
