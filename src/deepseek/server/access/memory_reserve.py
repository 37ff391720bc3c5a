"""Requests are refused before the last memory is used: libraries that find none left end the process, unasked."""

import time

from deepseek.engine.free_memory import free_memory

RESERVE_BYTES = 64 << 20
_LOOK_SECONDS = 0.25


class MemoryReserve:
    def __init__(self) -> None:
        self._free = RESERVE_BYTES
        self._looked_at = float("-inf")

    def check(self) -> None:
        """Raises MemoryError where less than RESERVE_BYTES are free, as of _LOOK_SECONDS ago at most."""
        now = time.monotonic()
        if now - self._looked_at > _LOOK_SECONDS:
            self._free, self._looked_at = free_memory(), now
        if self._free < RESERVE_BYTES:
            raise MemoryError(f"{self._free >> 20} MiB are left")
