"""From a checked request to what comes of it, step by step. All routes that generate share this.

`begin` queues a prompt and gives an `Answer`; iterating over it gives, for each step of the engine, a `Delta` for every
sample that went on. A whole answer is a fold over these. Leaving the loop early, by closing or cancelling, aborts the
request within a step.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deepseek.engine.outputs import TokenEvent
from deepseek.engine.streams import AsyncTokenStream
from deepseek.server.errors import ApiError

if TYPE_CHECKING:
    from deepseek.engine.sample_routing import SampleRouting
    from deepseek.sampling import SamplingParams
    from deepseek.server.service import Service


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What a request wants of the engine beside its prompt and params.

    request_id: of the answer, made by the route. experts: "answer": of generated tokens, "all": of the prompt's too.
    """

    request_id: str
    priority: int = 0
    cache_salt: str = ""
    experts: str | None = None


@dataclass(slots=True)
class Delta:
    """What came of one sample in one step.

    logprobs: (token id, log-probability, likeliest tokens with theirs) for each token, where asked for. routing: of the
    tokens from place `routing_from` of the answer on (negative: of the prompt); it comes a token late, as an input.
    """

    sample: int
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    logprobs: list[tuple[int, float, list[tuple[int, float]]]] = field(default_factory=list)
    finish_reason: str | None = None
    routing: "SampleRouting | None" = None
    routing_from: int = 0


class Answer:
    """The samples of one prompt as they come. Iterate over it once."""

    def __init__(self, service: "Service", stream: AsyncTokenStream, params: "SamplingParams", wish: Wish) -> None:
        self.prompt_tokens = stream.metrics.prompt_tokens
        self.generated_tokens = 0
        self.params = params
        self._service = service
        self._stream = stream
        self._wish = wish
        self._lengths = [0] * params.n
        self._routed = [0 if wish.experts == "all" else self.prompt_tokens] * params.n
        self._deadline = time.monotonic() + service.config.request_seconds

    @property
    def cached_tokens(self) -> int:
        return self._stream.metrics.cached_tokens

    @property
    def stream(self) -> AsyncTokenStream:
        return self._stream

    async def steps(self) -> AsyncGenerator[list[Delta], None]:
        """The deltas of each step; an empty list where nothing came for `keep_alive_seconds`.

        Raises ApiError when the time is over or the server closes, and what ended the request.
        """
        loop = asyncio.get_running_loop()
        interval = self._service.config.keep_alive_seconds
        watch = self._service.metrics.watch(self._stream.metrics)
        quiet = True
        timer: asyncio.TimerHandle

        def pulse() -> None:
            nonlocal quiet, timer
            if quiet or time.monotonic() > self._deadline:
                self._stream.nudge()
            quiet = True
            timer = loop.call_later(self._pulse_seconds(interval), pulse)

        timer = loop.call_later(self._pulse_seconds(interval), pulse)
        ended = 0
        try:
            while ended < self.params.n:
                events = await self._stream.take()
                quiet = not events
                if time.monotonic() > self._deadline:
                    limit = self._service.config.request_seconds
                    raise ApiError(504, f"the answer took longer than {limit:g} seconds (--request-seconds)")
                deltas = self._merged(events)
                watch.step(events)
                ended += sum(delta.finish_reason is not None for delta in deltas)
                yield deltas
        finally:
            timer.cancel()
            await self._stream.aclose()
            watch.end()

    def _pulse_seconds(self, interval: float) -> float:
        return max(0.0, min(interval, self._deadline - time.monotonic() + 0.001))

    def _merged(self, events: list[TokenEvent]) -> list[Delta]:
        deltas: dict[int, Delta] = {}
        for event in events:
            if event.finish_reason == "abort":
                raise ApiError(503, "the server ended this answer: it is shutting down", retry_after=5)
            delta = deltas.get(event.sample)
            if delta is None:
                delta = deltas[event.sample] = Delta(event.sample)
            delta.text += event.text
            delta.finish_reason = event.finish_reason
            if event.token_id is not None:
                delta.token_ids.append(event.token_id)
                if event.logprob is not None:
                    delta.logprobs.append((event.token_id, event.logprob, event.top_logprobs))
        for delta in deltas.values():
            self.generated_tokens += len(delta.token_ids)
            self._lengths[delta.sample] += len(delta.token_ids)
            if self._wish.experts is not None:
                self._add_routing(delta)
        return list(deltas.values())

    def _add_routing(self, delta: Delta) -> None:
        """Of what was computed since the last delta: all tokens but the newest."""
        start, end = self._routed[delta.sample], self.prompt_tokens + self._lengths[delta.sample] - 1
        if start < end:
            delta.routing = self._stream.routing(delta.sample, start, end)
            delta.routing_from = start - self.prompt_tokens
            self._routed[delta.sample] = end


async def begin(
    service: "Service", make: "Callable[[], tuple[Any, SamplingParams]]", wish: Wish, *, slow: bool = False
) -> Answer:
    """Queue a prompt. make: gives prompt (a text or ids) and params; runs in a worker thread, may take its time.

    slow: it may take seconds (grammars); then it holds up only others like it. Raises what is wrong with the request.
    """
    service.check_open()
    engine = service.engine

    def prepare() -> Any:
        prompt, params = make()
        return engine.prepare(
            prompt, params, priority=wish.priority, cache_salt=wish.cache_salt, request_id=wish.request_id,
            record_routing=wish.experts is not None,
        )  # fmt: skip

    request = await service.in_thread(prepare, slow=slow)
    return Answer(service, engine.start(request), request.params, wish)
