"""One JSON line a request, without anything that somebody said or a key that somebody gave.

Written by a thread of its own, so that a reader who stands still does not stop the server; then lines are dropped.
"""

import queue
import sys
import threading
from datetime import UTC, datetime
from typing import IO

import msgspec

_MOST_WAITING = 10_000


class RequestRecord(msgspec.Struct, omit_defaults=True):
    """What is known of a request in the end; what is empty is not written.

    key: its name. status 499: the client left before the answer began. error: its code or kind.
    """

    request_id: str
    client: str
    method: str
    path: str
    time: str = ""
    status: int = 0
    seconds: float = 0.0
    key: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    finish: list[str] = msgspec.field(default_factory=list)
    error: str | None = None


class AccessLog:
    """file: where lines go; None: standard error as it is then."""

    def __init__(self, file: IO[str] | None = None) -> None:
        self._file = file
        self._lines: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING)
        self._encode = msgspec.json.Encoder().encode
        self._thread = threading.Thread(target=self._write, name="deepseek-access-log", daemon=True)
        self._thread.start()

    def write(self, record: RequestRecord) -> None:
        record.time = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            self._lines.put_nowait(self._encode(record))
        except queue.Full:
            return

    def close(self) -> None:
        """Write what waits; for a second at most."""
        try:
            self._lines.put(None, timeout=1)
        except queue.Full:
            return
        self._thread.join(1)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            file = self._file or sys.stderr
            file.write(line.decode() + "\n")
            file.flush()
