"""Memory of long requests goes back to the system: glibc keeps what was freed for each thread that used it."""

import asyncio
import ctypes
from collections.abc import Callable

LONG_BODY = 1 << 20
_SECONDS = 1.0  # after a long request; several that end meanwhile count as one


class MemoryReturn:
    def __init__(self) -> None:
        self._trim = _find_trim()
        self._timer: asyncio.TimerHandle | None = None

    def after(self, body_bytes: int) -> None:
        """A request with a body of this length has ended."""
        if body_bytes >= LONG_BODY and self._trim is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SECONDS, self._give_back)

    def _give_back(self) -> None:
        self._timer = None
        if self._trim is not None:
            asyncio.get_running_loop().run_in_executor(None, self._trim, 0)


def _find_trim() -> Callable[[int], int] | None:
    """malloc_trim, which only glibc has. The call lets other threads run."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return trim
