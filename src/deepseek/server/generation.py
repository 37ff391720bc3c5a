"""From a checked request to what comes of it, step by step. All routes that generate share this.

`begin` queues a prompt and gives an `Answer`; iterating over it gives, for each step of the engine, a `Delta` for every
sample that went on. A whole answer is a fold over these. Leaving the loop early, by closing or cancelling, aborts the
request within a step.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deepseek.engine.outputs import TokenEvent
from deepseek.server.access.access_log import RequestRecord
from deepseek.server.errors import ApiError

if TYPE_CHECKING:
    from deepseek.engine.outputs import TokenLogprobs
    from deepseek.engine.pooling import Pooling
    from deepseek.engine.sample_routing import SampleRouting
    from deepseek.engine.sequence import Request
    from deepseek.sampling import SamplingParams
    from deepseek.server.service import Service


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What a request wants of the engine beside its prompt and params.

    request_id: of the answer, made by the route. record: of the HTTP request, which is told what was used.
    cache_salt: prompts are shared within. experts: "answer": of generated tokens, "all": of the prompt's too.
    headers: of the HTTP request, for traces.
    """

    request_id: str
    record: RequestRecord
    priority: int = 0
    cache_salt: str = ""
    experts: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Delta:
    """What came of one sample in one step.

    token_ids: with the token that ended the sample; n_visible: of them, without one that ended it and prints nothing.
    logprobs: (token id, log-probability, likeliest tokens with theirs) for each token, where asked for.
    texts: what became certain with each token; text: all of it. stopped_by: the stop string that ended the sample.
    routing: for each token the experts of the computation that chose it, whose input is the token before.
    prompt_routing: of the computations whose inputs are the prompt's tokens; once.
    """

    sample: int
    token_ids: list[int] = field(default_factory=list)
    n_visible: int = 0
    text: str = ""
    texts: list[str] = field(default_factory=list)
    logprobs: list[tuple[int, float, list[tuple[int, float]]]] = field(default_factory=list)
    finish_reason: str | None = None
    stopped_by: str | None = None
    routing: "SampleRouting | None" = None
    prompt_routing: "SampleRouting | None" = None


class Answer:
    """The samples of one prompt as they come. Iterate over `steps` once."""

    def __init__(self, service: "Service", request: "Request", wish: Wish) -> None:
        self.prompt_ids = request.prompt_ids
        self.params = request.params
        self.generated_tokens = 0
        self._service = service
        self._stream = service.engine.start(request)
        service.streams.add(self._stream)
        self._ends = request.ends
        self._wish = wish
        self._lengths = [0] * request.params.n
        self._finish: list[str] = []
        self._deadline = time.monotonic() + service.config.request_seconds

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt_ids)

    @property
    def cached_tokens(self) -> int:
        return self._stream.metrics.cached_tokens

    @property
    def prompt_logprobs(self) -> "list[TokenLogprobs] | None":
        """See `AsyncTokenStream.prompt_logprobs`."""
        return self._stream.prompt_logprobs

    async def steps(self) -> AsyncGenerator[list[Delta], None]:
        """The deltas of each step; an empty list where nothing came for `keep_alive_seconds`.

        Raises ApiError when the time is over or the server closes, and what ended the request.
        """
        watch = self._service.metrics.watch(self._stream.metrics)
        pulse = Pulse(self._service.config.keep_alive_seconds, self._deadline, self._stream.nudge)
        record = self._wish.record
        ended = 0
        broken_by: BaseException | None = None
        try:
            while ended < self.params.n:
                events = await self._stream.take()
                pulse.beat(events)
                deltas = self._merged(events)
                watch.step(events)
                ended += sum(delta.finish_reason is not None for delta in deltas)
                yield deltas
        except BaseException as error:
            broken_by = None if ended == self.params.n else error
            if isinstance(error, Exception):
                record.error = getattr(error, "code", None) or type(error).__name__
            raise
        finally:
            pulse.stop()
            await self._stream.aclose()
            watch.end(broken_by)
            self._trace(broken_by)
            record.prompt_tokens += self.prompt_tokens
            record.cached_tokens += self.cached_tokens
            record.generated_tokens += self.generated_tokens

    def _trace(self, broken_by: BaseException | None) -> None:
        tracing = self._service.tracing
        if tracing is not None:
            wish = self._wish
            tracing.answered(
                wish.record.path,
                wish.headers,
                wish.request_id,
                self.params,
                self._stream.metrics,
                self._finish,
                broken_by,
            )

    async def aclose(self) -> None:
        """End an answer whose `steps` were never begun."""
        await self._stream.aclose()

    def _merged(self, events: list[TokenEvent]) -> list[Delta]:
        deltas: dict[int, Delta] = {}
        for event in events:
            if event.finish_reason == "abort":
                raise ApiError(503, "the server ended this answer: it is shutting down", retry_after=5)
            delta = deltas.get(event.sample)
            if delta is None:
                delta = deltas[event.sample] = Delta(event.sample)
            delta.text += event.text
            delta.texts.append(event.text)
            delta.finish_reason = event.finish_reason
            delta.stopped_by = event.stopped_by
            if event.token_id is not None:
                delta.token_ids.append(event.token_id)
                delta.n_visible += event.token_id not in self._ends
                if event.logprob is not None:
                    delta.logprobs.append((event.token_id, event.logprob, event.top_logprobs))
        for delta in deltas.values():
            if delta.finish_reason is not None:
                self._finish.append(delta.finish_reason)
                self._wish.record.finish.append(delta.finish_reason)
            if self._wish.experts is not None:
                self._add_routing(delta)
            self.generated_tokens += len(delta.token_ids)
            self._lengths[delta.sample] += len(delta.token_ids)
        return list(deltas.values())

    def _add_routing(self, delta: Delta) -> None:
        length, sample = self._lengths[delta.sample], delta.sample
        if length == 0 and self._wish.experts == "all":
            delta.prompt_routing = self._stream.routing(sample, 0, self.prompt_tokens)
        first = self.prompt_tokens + length - 1
        delta.routing = self._stream.routing(sample, first, first + len(delta.token_ids))


class Pulse:
    """Wakes a stream where nothing comes: now and then, and when its time is over."""

    def __init__(self, interval: float, deadline: float, nudge: Callable[[], None]) -> None:
        """interval: seconds. deadline: as `time.monotonic()`."""
        self._interval = interval
        self._deadline = deadline
        self._begun = time.monotonic()
        self._nudge = nudge
        self._is_quiet = True
        self._timer = self._next()

    def beat(self, events: list[TokenEvent]) -> None:
        """Something came, or the pulse itself. Raises ApiError when the time is over."""
        self._is_quiet = not events
        if time.monotonic() > self._deadline:
            seconds = self._deadline - self._begun
            raise ApiError(504, f"the answer took longer than {seconds:.0f} seconds (--request-seconds)")

    def stop(self) -> None:
        self._timer.cancel()

    def _next(self) -> asyncio.TimerHandle:
        left = self._deadline - time.monotonic() + 0.001
        return asyncio.get_running_loop().call_later(max(0.001, min(self._interval, left)), self._tick)

    def _tick(self) -> None:
        if self._is_quiet or time.monotonic() > self._deadline:
            self._nudge()
        self._is_quiet = True
        self._timer = self._next()


async def begin(
    service: "Service",
    make: "Callable[[], tuple[Any, SamplingParams]]",
    wish: Wish,
    *,
    slow: bool = False,
    pooling: "Pooling | None" = None,
) -> Answer:
    """Queue a prompt. make: gives prompt (a text or ids) and params; runs in a worker thread, may take its time.

    slow: it may take seconds (grammars); then it holds up only others like it. pooling: nothing is generated, the
    prompt's hidden states go there. Raises what is wrong with the request.
    """
    service.check_open()
    engine = service.engine
    if wish.experts is not None and not engine.expert_layers:
        raise ApiError(400, "routed_experts needs a model with experts: this one is dense", param="routed_experts")

    def prepare() -> "Request":
        prompt, params = make()
        request = engine.prepare(
            prompt, params, priority=wish.priority, cache_salt=wish.cache_salt, request_id=wish.request_id,
            record_routing=wish.experts is not None,
        )  # fmt: skip
        request.pooling = pooling
        return request

    return Answer(service, await service.in_thread(prepare, slow=slow), wish)
