"""Answers for as long as the client listens: whole ones, and streams of server-sent events."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deepseek.server.protocol.answers import ChatChunk, Completion, encode

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

Result = TypeVar("Result")


class ClientGone(Exception):
    """The client closed the connection; nobody is left to be answered."""


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def choice_events(chunk: ChatChunk | Completion, choices: Sequence[Any]) -> bytes:
    """One event for each choice of a step, as OpenAI sends them: many clients read the first of an event only."""
    events = []
    for choice in choices:
        chunk.choices = [choice]
        events.append(event(encode(chunk)))
    return b"".join(events) or KEEP_ALIVE


async def while_connected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled at once when the client leaves; then raises ClientGone."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for one in (task, watch):
            if not one.done():
                one.cancel()
                with suppress(asyncio.CancelledError):
                    await one


async def whole(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response that `work` makes, or one that nobody reads."""
    try:
        return await while_connected(request.receive, work)
    except ClientGone:
        return Response(status_code=499)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Writes each piece that comes as one write. Closes the source when the client leaves, whatever it waits for."""

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self._pieces = pieces
        self.status_code = 200
        self.background = None
        self.init_headers(_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        with suppress(ClientGone):
            await while_connected(receive, self._write(send))

    async def _write(self, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
