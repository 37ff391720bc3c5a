"""A line of a batch as a request within the process: the same route, checks and errors as for one from outside."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message

from deepseek.server.access.access_log import RequestRecord
from deepseek.server.access.keys import ApiKey
from deepseek.server.errors import as_api_error, error_response
from deepseek.server.gate import KEY, PRIORITY, RECORD

BATCH_PRIORITY = 1 << 30  # behind whatever a request may ask for itself

_log = logging.getLogger("deepseek.server")


@dataclass(frozen=True, slots=True)
class Reply:
    """record: what the request used."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    record: RequestRecord


async def call(app: ASGIApp, path: str, body: bytes, *, request_id: str, key: ApiKey | None) -> Reply:
    """The answer to a POST. Cancelling it aborts the request, as a client does that leaves."""
    record = RequestRecord(request_id, "", "POST", path)
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
        "client": None, "server": None, RECORD: record, PRIORITY: BATCH_PRIORITY,
    }  # fmt: skip
    if key is not None:
        scope[KEY] = key
    was_read = False
    parts: list[bytes] = []
    headers: dict[str, str] = {}

    async def receive() -> Message:
        nonlocal was_read
        if was_read:
            await asyncio.Event().wait()  # this client never leaves
        was_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            record.status = message["status"]
            for name, value in message["headers"]:
                headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        else:
            parts.append(message.get("body", b""))

    try:
        await app(scope, receive, send)
    except Exception as error:  # noqa: BLE001  what no handler answers is a bug of ours, and this line's alone
        _log.exception("request %s failed", request_id)
        refused = error_response(path, as_api_error(error))
        return Reply(refused.status_code, {}, bytes(refused.body), record)
    return Reply(record.status, headers, b"".join(parts), record)
