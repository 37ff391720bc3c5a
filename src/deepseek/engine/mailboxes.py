"""How the engine's thread reaches those who wait for tokens: other threads, or coroutines of an event loop."""

import asyncio
import queue
from typing import TYPE_CHECKING

from deepseek.engine.sequence import Request

if TYPE_CHECKING:
    from deepseek.engine.outputs import TokenEvent
    from deepseek.engine.sequence import Message


class ThreadMailbox:
    """For a thread that waits. `take` blocks until there is something."""

    def __init__(self) -> None:
        self._posts: queue.SimpleQueue[list[Message]] = queue.SimpleQueue()

    def post(self, messages: "list[Message]") -> None:
        self._posts.put(messages)

    def take(self) -> "list[Message]":
        return self._posts.get()


class LoopMailbox:
    """For all coroutines of one event loop, woken by one call a step. `open` and `shut` belong to the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queues: dict[Request, asyncio.Queue[TokenEvent | Exception | None]] = {}

    def open(self, request: Request) -> "asyncio.Queue[TokenEvent | Exception | None]":
        """The queue on which what comes of this request arrives; None on it means nothing."""
        self._queues[request] = asyncio.Queue()
        return self._queues[request]

    def shut(self, request: Request) -> None:
        """Drop what still comes of it."""
        self._queues.pop(request, None)

    def post(self, messages: "list[Message]") -> None:
        if not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(self._spread, messages)
            except RuntimeError:  # closed in between: nobody is left to be told
                return

    def _spread(self, messages: "list[Message]") -> None:
        for request, event in messages:
            waiting = self._queues.get(request)
            if waiting is not None:
                waiting.put_nowait(event)
