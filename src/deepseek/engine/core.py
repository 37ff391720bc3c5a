"""The engine's thread: takes requests in, runs steps one after another, tells what came of them."""

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepseek.engine.advance import advance
from deepseek.engine.batch import Batch, Runner, StepCancelled
from deepseek.engine.outputs import TokenEvent
from deepseek.engine.sample_routing import gather, watch
from deepseek.engine.scheduler import Scheduler
from deepseek.engine.sequence import Request
from deepseek.errors import DeepseekError, GenerationError

if TYPE_CHECKING:
    from deepseek.engine.sequence import Mailbox, Message

_LONG_CHUNK = 64  # an abort cuts a step short when so many tokens, and most of them all, are for nothing


class EngineFailure(RuntimeError):
    """A request could not be carried out because the engine, not the request, was at fault."""


class QueueFull(GenerationError):
    """Too many requests wait. Try again when some have ended."""


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """running, waiting: sequences. used_blocks: of total_blocks those that sequences hold; cached_blocks: those that
    can be found again although none holds them. block_tokens, block_bytes: of one block. weight_bytes: of the model.
    broken: the engine has stopped after an error.
    """

    running: int
    waiting: int
    used_blocks: int
    cached_blocks: int
    total_blocks: int
    block_tokens: int
    block_bytes: int
    weight_bytes: int
    broken: bool


class EngineCore:
    """Owns the thread, which alone touches scheduler and runner. The methods may be called from any thread.

    max_queue: requests that may wait to be started. record_routing: in every step, whoever asks.
    """

    def __init__(self, runner: Runner, scheduler: Scheduler, *, max_queue: int, record_routing: bool = False) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._max_queue = max_queue
        self._record_routing = record_routing
        self._wake = threading.Condition()
        self._arrived: list[Request] = []
        self._aborted: list[str] = []
        self._requests: dict[str, Request] = {}
        self._arrivals = 0
        self._in_step: Batch | None = None
        self._closing = False
        self._broken: Exception | None = None
        self._thread = threading.Thread(target=self._serve, name="deepseek-engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queue a request; what comes of it goes to its mailbox. Raises GenerationError, QueueFull among them."""
        with self._wake:
            self._check_open()
            if request.id in self._requests:
                raise GenerationError(f"a request with the id {request.id!r} is running already: give another id")
            if len(self._requests) >= self._max_queue and self._waiting() >= self._max_queue:
                raise QueueFull(
                    f"the queue is full: {self._max_queue} requests wait (max_queue); try again later or raise it"
                )
            self._arrivals += 1
            request.arrive(self._arrivals, time.monotonic())
            self._requests[request.id] = request
            self._arrived.append(request)
            self._wake.notify()

    def abort(self, request_id: str) -> None:
        """End a request soon: its samples get a last event with finish_reason "abort". Unknown ids are done already."""
        with self._wake:
            request = self._requests.get(request_id)
            if request is None:
                return
            self._aborted.append(request_id)
            if self._in_step is not None and _mostly_for(request, self._in_step):
                self._runner.cancel()
            self._wake.notify()

    def close(self) -> None:
        """End all requests with "abort" and the thread with them; returns when it has ended."""
        with self._wake:
            self._closing = True
            if self._in_step is not None:
                self._runner.cancel()
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def load(self) -> EngineLoad:
        """A glance without waiting for the step that runs, so that figures may be of different moments."""
        scheduler, pool = self._scheduler, self._scheduler.blocks.pool
        return EngineLoad(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting) + len(self._arrived),
            used_blocks=pool.n_blocks - pool.n_free,
            cached_blocks=pool.n_cached,
            total_blocks=pool.n_blocks,
            block_tokens=scheduler.blocks.block_size,
            block_bytes=self._runner.nbytes_a_block,
            weight_bytes=self._runner.weight_bytes,
            broken=self._broken is not None,
        )

    @property
    def n_requests(self) -> int:
        """Requests that have not ended."""
        return len(self._requests)

    def _check_open(self) -> None:
        if self._broken is not None:
            raise EngineFailure(f"the engine has stopped after an error: {self._broken!r}") from self._broken
        if self._closing:
            raise GenerationError("the engine is closed: make a new one")

    def _waiting(self) -> int:
        return sum(not request.metrics.first_scheduled_time for request in list(self._requests.values()))

    def _serve(self) -> None:
        try:
            while self._take_in():
                self._step()
        except Exception as error:  # noqa: BLE001  a bug of ours: nobody may wait for ever
            with self._wake:
                self._broken = error
        finally:
            with self._wake:
                self._closing = True
                remaining = list(self._requests.values())
                self._requests.clear()
            self._tell([message for request in remaining for message in self._last_words(request)])

    def _take_in(self) -> bool:
        """Wait until there is work, start what arrived and end what was aborted. False: close."""
        aborted: list[Request] = []
        with self._wake:
            while not (self._arrived or self._aborted or self._closing or self._scheduler.has_work):
                self._wake.wait()
            if self._closing:
                return False
            if self._arrived or self._aborted:
                for request in self._arrived:
                    self._scheduler.add(request)
                aborted = [self._requests.pop(name) for name in self._aborted if name in self._requests]
                self._arrived, self._aborted = [], []
                for request in aborted:
                    self._scheduler.remove_request(request)
        self._tell([message for request in aborted for message in self._last_words(request)])
        return True

    def _step(self) -> None:
        if not self._scheduler.has_work:
            return
        batch = self._scheduler.schedule()
        routing = self._runner.routing
        if routing is not None:
            watch(batch, routing, always=self._record_routing)
        self._in_step = batch
        begun = time.perf_counter()
        try:
            output = self._runner.run(batch)
        except StepCancelled:
            self._scheduler.roll_back(batch)
            return
        except Exception as error:  # noqa: BLE001  whatever it is, only this batch suffers from it
            self._fail(batch, error)
            return
        finally:
            self._in_step = None
        if routing is not None and routing.is_on:
            gather(batch, routing)
        messages = advance(self._scheduler, batch, output)
        seconds = time.perf_counter() - begun
        rows, prompt_tokens = _work_of(batch)
        self._scheduler.pace.observe(rows, prompt_tokens, seconds / batch.steps)
        self._tell(messages)

    def _fail(self, batch: Batch, error: Exception) -> None:
        self._scheduler.roll_back(batch)
        requests = {chunk.sequence.request: None for chunk in batch.chunks}
        for request in requests:
            self._scheduler.remove_request(request)
        self._tell([(request, error) for request in requests])

    def _last_words(self, request: Request) -> "list[Message]":
        """Of a request that ends before its time."""
        if self._broken is not None:
            return [(request, self._broken)]
        ended = {sequence.index for sequence in request.sequences if sequence.finish_reason not in (None, "abort")}
        missing = [index for index in range(request.params.n) if index not in ended]
        return [(request, TokenEvent(request.index, index, None, "", "abort")) for index in missing]

    def _tell(self, messages: "list[Message]") -> None:
        """One post a mailbox. A request that has ended is forgotten first."""
        posts: dict[Mailbox, list[Message]] = {}
        for request, event in messages:
            if isinstance(event, Exception):
                self._requests.pop(request.id, None)
                event = _as_failure(event)
            elif event.finish_reason is not None and request.has_ended:
                self._requests.pop(request.id, None)
            if request.mailbox is not None:
                posts.setdefault(request.mailbox, []).append((request, event))
        for mailbox, post in posts.items():
            mailbox.post(post)


def _as_failure(error: Exception) -> Exception:
    """A fresh error for each request, so that no two callers raise the same object."""
    if isinstance(error, DeepseekError):
        return error
    failure = EngineFailure(f"the request failed because a step of the engine did: {error!r}")
    failure.__cause__ = error
    return failure


def _mostly_for(request: Request, batch: Batch) -> bool:
    own = sum(chunk.count for chunk in batch.chunks if chunk.sequence.request is request)
    return own >= _LONG_CHUNK and 2 * own > sum(chunk.count for chunk in batch.chunks)


def _work_of(batch: Batch) -> tuple[int, int]:
    """Rows that generate or verify, and prompt tokens."""
    rows = prompt_tokens = 0
    for chunk in batch.chunks:
        if chunk.count == 1 or chunk.start >= chunk.sequence.n_prompt:
            rows += chunk.count
        else:
            prompt_tokens += chunk.count
    return rows, prompt_tokens
