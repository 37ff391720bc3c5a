"""Events of one request as they come, for loops of both kinds. Ending such a loop early aborts the request."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from deepseek.engine.mailboxes import LoopMailbox, ThreadMailbox
from deepseek.engine.outputs import RequestMetrics, TokenEvent
from deepseek.engine.sample_routing import SampleRouting, routing_of

if TYPE_CHECKING:
    from deepseek.engine.outputs import TokenLogprobs
    from deepseek.engine.sequence import Message, Request


class _Stream:
    """What both kinds share: counting the samples that have ended, and aborting."""

    def __init__(self, request: "Request", abort: Callable[[str], None]) -> None:
        self._request = request
        self._abort = abort
        self._open_samples = request.params.n

    @property
    def id(self) -> str:
        """The name to abort the request by."""
        return self._request.id

    @property
    def metrics(self) -> RequestMetrics:
        return self._request.metrics

    @property
    def prompt_logprobs(self) -> "list[TokenLogprobs] | None":
        """For prompt tokens from the second on, complete when the first event has come; None unless asked for."""
        return None if self._request.params.prompt_logprobs is None else self._request.prompt_logprobs

    def routing(self, sample: int = 0, start: int = 0, end: int | None = None) -> SampleRouting | None:
        """Which experts tokens [start, end) of prompt and answer used; end None: all that were computed.

        Known for all tokens before the newest one that an event told. None unless asked for.
        """
        return routing_of(self._request.sequences[sample], start, end)

    def _passed(self, event: TokenEvent | Exception) -> TokenEvent:
        if isinstance(event, Exception):
            self._open_samples = 0
            raise event
        if event.finish_reason is not None:
            self._open_samples -= 1
        return event

    def _leave(self) -> None:
        if self._open_samples:
            self._open_samples = 0
            self._abort(self._request.id)

    def __del__(self) -> None:
        self._leave()


class TokenStream(_Stream):
    """Iterates over the TokenEvents of all samples; raises what ended the request."""

    def __init__(self, request: "Request", mailbox: ThreadMailbox, abort: Callable[[str], None]) -> None:
        super().__init__(request, abort)
        self._mailbox = mailbox
        self._ready: list[Message] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TokenEvent:
        if not self._open_samples:
            raise StopIteration
        if not self._ready:
            self._ready = self._mailbox.take()[::-1]
        return self._passed(self._ready.pop()[1])

    def close(self) -> None:
        """Stop early."""
        self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leave()


class AsyncTokenStream(_Stream):
    """The same for `async for`, in the event loop that it was made in. Cancelling the task aborts the request."""

    def __init__(
        self,
        request: "Request",
        mailbox: LoopMailbox,
        events: "asyncio.Queue[TokenEvent | Exception | None]",
        abort: Callable[[str], None],
    ) -> None:
        super().__init__(request, abort)
        self._mailbox = mailbox
        self._events = events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenEvent:
        if not self._open_samples:
            raise StopAsyncIteration
        try:
            event = None
            while event is None:
                event = await self._events.get()
            return self._passed(event)
        except asyncio.CancelledError:
            self._leave()
            raise
        finally:
            if not self._open_samples:
                self._mailbox.shut(self._request)

    async def take(self) -> list[TokenEvent]:
        """All events that have come, waiting for the first: mostly those of one step. Raises what ended the request.

        Empty when all samples have ended, or when `nudge` was called while nothing had come.
        """
        taken: list[TokenEvent] = []
        if not self._open_samples:
            return taken
        try:
            event = await self._events.get()
            while True:
                if isinstance(event, Exception) and taken:
                    self._events.put_nowait(event)  # first what came before it
                    return taken
                if event is not None:
                    taken.append(self._passed(event))
                if self._events.empty():
                    return taken
                event = self._events.get_nowait()
        except asyncio.CancelledError:
            self._leave()
            raise
        finally:
            if not self._open_samples:
                self._mailbox.shut(self._request)

    def nudge(self) -> None:
        """Let a waiting `take` return; in the loop's thread."""
        self._events.put_nowait(None)

    async def aclose(self) -> None:
        """Stop early."""
        self._leave()
        self._mailbox.shut(self._request)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()
