"""Bodies of requests as they come: bounded in length and time, decompressed where they are compressed."""

import asyncio
import time
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from deepseek.server.errors import ApiError

if TYPE_CHECKING:
    from deepseek.server.server_config import ServerConfig

_PIECE = 256 * 1024  # decompressed at a time, in about a millisecond
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


def whole_body(receive: Receive, config: "ServerConfig", headers: Headers, most: int) -> "BodyLimit | Decompressed":
    """`receive` for a body of at most `most` bytes, decompressed. Raises ApiError for what it cannot read."""
    limited = BodyLimit(receive, config, headers, most)
    codings = [name.strip().lower() for value in headers.getlist("content-encoding") for name in value.split(",")]
    codings = [name for name in codings if name not in ("", "identity")]
    if not codings:
        return limited
    if len(codings) > 1 or codings[0] not in ("gzip", "x-gzip", "deflate"):
        raise ApiError(
            415, f"Content-Encoding {', '.join(codings):.100} is not supported: send gzip, deflate or no compression",
            code="content_encoding", headers={"Accept-Encoding": "gzip, deflate", "Connection": "close"},
        )  # fmt: skip
    return Decompressed(limited, codings[0], limited.check)


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
        self.length = 0
        self._is_whole = False
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and len(announced) < 20:
            self.length = int(announced)
        self.check(self.length)
        self.length = 0

    async def __call__(self) -> Message:
        if self._is_whole:
            return await self._receive()
        try:
            until = self._begun + self._seconds + self.length * self._seconds_a_byte
            async with asyncio.timeout(until - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(
                408, f"the body did not come within {self._seconds:g} seconds", headers={"Connection": "close"}
            ) from None
        self.length += len(message.get("body", b""))
        self.check(self.length)
        self._is_whole = not message.get("more_body", False)
        return message

    def check(self, length: int) -> None:
        """Raises ApiError for a body of so many bytes."""
        if length > self._most:
            raise ApiError(
                413, f"the body is longer than {self._most:,} bytes: send less, or raise --max-body-bytes "
                "(for files --max-file-bytes)",
                headers={"Connection": "close"},
            )  # fmt: skip


class Decompressed:
    """`receive` of what a compressed body holds. check: raises for a length that is too much."""

    def __init__(self, receive: Receive, coding: str, check: Callable[[int], None]) -> None:
        self._receive = receive
        self._coding = coding
        self._check = check
        self._reader = zlib.decompressobj(_GZIP if coding != "deflate" else _ZLIB)
        self._waiting = b""
        self.length = 0
        self._is_begun = self._is_last = self._is_whole = False

    async def __call__(self) -> Message:
        if self._is_whole:
            return await self._receive()
        while True:
            if not self._waiting and not self._is_last:
                message = await self._receive()
                if message["type"] != "http.request":
                    return message
                self._waiting = message.get("body", b"")
                self._is_last = not message.get("more_body", False)
            piece = self._decompress()
            self.length += len(piece)
            self._check(self.length)
            self._is_whole = self._is_last and not self._waiting and len(piece) < _PIECE
            if self._is_whole and self._is_begun and not self._reader.eof:
                raise self._broken("it ends early")
            if piece or self._is_whole:
                await asyncio.sleep(0)  # others may go on between pieces
                return {"type": "http.request", "body": piece, "more_body": not self._is_whole}

    def _decompress(self) -> bytes:
        """The next piece; what is not read yet stays in `_waiting`."""
        data = self._waiting
        if self._reader.eof and data:  # gzip files may follow one another
            self._reader = zlib.decompressobj(_GZIP if self._coding != "deflate" else _ZLIB)
        try:
            piece = self._reader.decompress(data, _PIECE)
        except zlib.error as error:
            if self._is_begun or self._coding != "deflate":
                raise self._broken(str(error)) from None
            self._reader = zlib.decompressobj(_RAW)  # what many call deflate
            try:
                piece = self._reader.decompress(data, _PIECE)
            except zlib.error:
                raise self._broken(str(error)) from None
        self._is_begun = self._is_begun or bool(data)
        self._waiting = self._reader.unused_data if self._reader.eof else self._reader.unconsumed_tail
        return piece

    def _broken(self, what: str) -> ApiError:
        return ApiError(400, f"the body cannot be decompressed as {self._coding}: {what}", code="content_encoding")
