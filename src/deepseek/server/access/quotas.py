"""How much a key may use: requests and tokens a minute, tokens a day, requests at a time.

Kept in memory by the steady clock: a restart forgives, a clock that jumps changes nothing.
"""

import time
from collections.abc import Callable

from deepseek.server.errors import ApiError

_DAY = 86_400.0


class Bucket:
    """Fills evenly up to `size` in `seconds`. May be overdrawn, and then is empty for longer."""

    def __init__(self, size: int, seconds: float, clock: Callable[[], float]) -> None:
        self._size = size
        self._rate = size / seconds
        self._clock = clock
        self._level = float(size)
        self._at = clock()

    def wait(self, amount: float = 1.0) -> float:
        """Seconds until so much is there; 0.0: it is now."""
        now = self._clock()
        self._level = min(self._size, self._level + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (min(amount, self._size) - self._level) / self._rate)

    def take(self, amount: float) -> None:
        self._level -= amount


class Quota:
    """One key's. Used by the event loop's thread alone."""

    def __init__(
        self,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        tokens_per_day: int | None = None,
        max_concurrent: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests = Bucket(requests_per_minute, 60.0, clock) if requests_per_minute else None
        self._tokens = [
            (name, Bucket(size, seconds, clock))
            for name, size, seconds in (
                ("tokens_per_minute", tokens_per_minute, 60.0),
                ("tokens_per_day", tokens_per_day, _DAY),
            )
            if size
        ]
        self._max_concurrent = max_concurrent
        self._running = 0

    def enter(self) -> None:
        """One more request. Raises ApiError with 429 where that is too much; else `leave` must follow."""
        if self._max_concurrent is not None and self._running >= self._max_concurrent:
            raise _too_much("max_concurrent", 1.0)
        for name, bucket in self._tokens:
            if wait := bucket.wait():
                raise _too_much(name, wait)
        if self._requests is not None:
            if wait := self._requests.wait():
                raise _too_much("requests_per_minute", wait)
            self._requests.take(1)
        self._running += 1

    def token_wait(self) -> float:
        """Seconds until tokens may be used again; 0.0: now. For work that no request waits for."""
        return max((bucket.wait() for _, bucket in self._tokens), default=0.0)

    def charge(self, tokens: int) -> None:
        """So many tokens were used by such work."""
        for _, bucket in self._tokens:
            bucket.take(tokens)

    def leave(self, tokens: int) -> None:
        """The request has ended and used so many tokens, which are paid for afterwards."""
        self._running -= 1
        self.charge(tokens)


def _too_much(limit: str, wait: float) -> ApiError:
    return ApiError(429, f"this API key has reached its {limit}: try again later", code=limit, retry_after=wait)
