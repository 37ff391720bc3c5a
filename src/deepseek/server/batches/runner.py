"""Which line of which batch runs when: in seats that nobody else wants, owner after owner, until all are answered.

What it must remember is in the database. Ended at any moment, it goes on where it was: a line that was not answered is
answered again, and one answer of each line is kept.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from deepseek.server.access.keys import ApiKey, Keyring
from deepseek.server.batches.caller import Reply, call
from deepseek.server.batches.jobs import Jobs, error_line
from deepseek.server.batches.lines import Rules
from deepseek.server.batches.records import CANCELLED, CANCELLING, COMPLETED, EXPIRED, VALIDATING, Job, Line, new_id
from deepseek.server.errors import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from deepseek.server.service import Service

MOST_ATTEMPTS = 4
"""So often a line may be begun without coming to an end: one that kills the process must not do so for ever."""
SHARE = 4  # beside other requests batches have one seat in so many
_POLL_SECONDS = 0.1  # until it looks again whether seats are free
_RETRY_SECONDS = 5.0
_MOST_SLEEP_SECONDS = 60.0
_log = logging.getLogger("deepseek.server")


class Runner:
    """Made in a running event loop. rules: for files, but for their batch's endpoint."""

    def __init__(self, app: "ASGIApp", service: "Service", keys: Keyring, jobs: Jobs, rules: Rules) -> None:
        self._app = app
        self._service = service
        self._keys = keys
        self._jobs = jobs
        self._rules = rules
        self._running: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._turns: dict[str, int] = {}
        self._turn = 0
        self._woken = asyncio.Event()
        self._task = asyncio.create_task(self._serve(), name="deepseek-batches")

    def wake(self) -> None:
        """Something has changed: look again."""
        self._woken.set()

    async def stop(self) -> None:
        """End what runs; it is begun again when a runner is next made."""
        tasks = [self._task, *self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self) -> None:
        while True:
            self._woken.clear()
            try:
                pause = await self._look()
            except ApiError as error:  # the disk is full or fails: what is stored stays as it is
                _log.error("batches cannot go on: %s", error.message)
                pause = _RETRY_SECONDS
            except Exception:  # noqa: BLE001  a bug of ours: the others' batches go on
                _log.exception("batches cannot go on")
                pause = _RETRY_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def _look(self) -> float:
        """Do what can be done now. Returns the seconds after which to look again, unless woken."""
        workable = []
        pause = _MOST_SLEEP_SECONDS
        for job in await self._jobs.open():
            if await self._settled(job):
                continue
            if job.model not in self._service.model_names:
                continue  # waits for a server of its model, or until it expires
            pause = min(pause, max(0.0, job.expires_at - time.time()))
            workable.append(job)
        return min(pause, await self._start(workable))

    async def _settled(self, job: Job) -> bool:
        """Bring a batch to its next status, if it is time for that."""
        if job.status == VALIDATING:
            if job.model in self._service.model_names:
                await self._jobs.begin(job, replace(self._rules, endpoint=job.endpoint))
                self.wake()
            return True
        if job.status == CANCELLING:
            await self._end_lines(job)
            await self._jobs.end(job, CANCELLED, "batch_cancelled", "the batch was cancelled before this line's turn")
            return True
        if job.expires_at <= time.time():
            await self._end_lines(job)
            await self._jobs.end(job, EXPIRED, "batch_expired", "the batch expired before this line was answered")
            return True
        if len(self._keys) and self._keys.payer(job.owner, job.key_name) is None and job.owner:
            await self._end_lines(job)
            await self._jobs.fail(job, "key_removed", "the API key that the batch belongs to is no longer valid")
            return True
        return False

    async def _start(self, jobs: Sequence[Job]) -> float:
        """Start lines as there are seats. Returns as `_look`."""
        jobs = list(jobs)
        pause = _MOST_SLEEP_SECONDS
        while jobs:
            if self._service.is_draining:
                return _RETRY_SECONDS
            if self._room() <= 0:
                return _POLL_SECONDS
            job = min(jobs, key=lambda one: (self._turns.get(one.owner, 0), one.number))
            key = self._keys.payer(job.owner, job.key_name)
            if key is not None and (wait := key.quota.token_wait()):
                pause = min(pause, wait)
                jobs.remove(job)
                continue
            running = [line for number, line in self._running if number == job.number]
            taken = await self._jobs.take(job, running)
            if taken is None:
                jobs.remove(job)
                if not running:
                    await self._jobs.end(job, COMPLETED, "unanswered", "the line has no answer")
                continue
            self._turn += 1
            self._turns[job.owner] = self._turn
            line, attempts = taken
            task = asyncio.create_task(self._line(job, line, key, attempts))
            self._running[job.number, line.number] = task
        return pause

    def _room(self) -> int:
        load = self._service.engine.load()
        if load.broken:
            return 0
        own, seats = len(self._running), self._service.config.max_num_seqs
        busy = max(own, load.running + load.waiting)
        share = seats if busy == own else max(1, seats // SHARE)
        return min(share - own, seats - busy)

    async def _end_lines(self, job: Job) -> None:
        tasks = [task for (number, _), task in self._running.items() if number == job.number]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _line(self, job: Job, line: Line, key: ApiKey | None, attempts: int) -> None:
        place = (job.number, line.number)
        try:
            if attempts >= MOST_ATTEMPTS:
                told = error_line(
                    line.custom_id, "interrupted", f"the server ended {attempts} times while it answered this line"
                )
                await self._keep(job, line, told, succeeded=False)
                return
            request_id = new_id("batch_req_")
            reply = await self._reply(line, key, request_id)
            if reply is not None:
                await self._keep(job, line, answer_line(line, request_id, reply), succeeded=reply.status < 400)
                return
            await asyncio.sleep(_RETRY_SECONDS)
            await self._jobs.give_back(job, line.number)
        except asyncio.CancelledError:
            await asyncio.shield(self._jobs.give_back(job, line.number))
            raise
        except Exception:  # noqa: BLE001  a bug of ours: the line is tried again, up to MOST_ATTEMPTS
            _log.exception("line %d of %s cannot be kept", line.number, job.id)
            await asyncio.sleep(_RETRY_SECONDS)
        finally:
            del self._running[place]
            self.wake()

    async def _reply(self, line: Line, key: ApiKey | None, request_id: str) -> Reply | None:
        """None: the server, not the line, is at fault, so that the line must be tried again."""
        while True:
            reply = await call(self._app, line.url, line.body, request_id=request_id, key=key)
            if key is not None:
                used = reply.record
                key.quota.charge(used.prompt_tokens - used.cached_tokens + used.generated_tokens)
            if reply.status == 429:
                await asyncio.sleep(min(float(reply.headers.get("retry-after", "1")), _RETRY_SECONDS))
                continue
            if reply.status == 503 or self._service.engine.load().broken:
                return None
            return reply

    async def _keep(self, job: Job, line: Line, answer: bytes, *, succeeded: bool) -> None:
        """Write an answer down, however long the disk is full."""
        while True:
            try:
                await self._jobs.record(job, line.number, answer, succeeded=succeeded)
                return
            except ApiError as error:
                _log.error("the answer to line %d of %s waits: %s", line.number, job.id, error.message)
                await asyncio.sleep(_RETRY_SECONDS)


def answer_line(line: Line, request_id: str, reply: Reply) -> bytes:
    response = {"status_code": reply.status, "request_id": request_id, "body": msgspec.Raw(reply.body)}
    told = {"id": request_id, "custom_id": line.custom_id, "response": response, "error": None}
    return msgspec.json.encode(told) + b"\n"
