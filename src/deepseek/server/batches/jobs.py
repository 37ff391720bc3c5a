"""What may be done to batches, each a transaction: so a line is answered once, whenever the process ends."""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from deepseek.server.batches import lines as rules_of
from deepseek.server.batches.database import Database
from deepseek.server.batches.files import OUTPUT, add_file, chunks_of, found, in_chunks, purge
from deepseek.server.batches.lines import Rules, WrongLine
from deepseek.server.batches.records import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    FAILED,
    IN_PROGRESS,
    OPEN,
    VALIDATING,
    Job,
    Line,
    new_id,
    one_file,
    one_job,
)  # fmt: skip
from deepseek.server.errors import ApiError

MOST_ERRORS = 100  # are told of a file


class Jobs:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, owner: str, *, key_name: str | None, endpoint: str | None, model: str, input_file_id: str,
        completion_window: str, window_seconds: int, metadata: Mapping[str, str] | None = None,
        output_seconds: int | None = None,
    ) -> Job:  # fmt: skip
        """Raises ApiError where this owner has no such file."""
        now = int(time.time())

        def work(connection: sqlite3.Connection) -> Job:
            found(one_file(connection, owner, input_file_id), input_file_id, "input_file_id")
            job_id = new_id("batch_")
            connection.execute(
                "INSERT INTO jobs (id, owner, key_name, endpoint, model, input_file_id, completion_window, metadata, "
                "status, times, output_seconds, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (job_id, owner, key_name, endpoint, model, input_file_id, completion_window,
                 None if metadata is None else json.dumps(metadata), VALIDATING, json.dumps({"created": now}),
                 output_seconds, now + window_seconds),
            )  # fmt: skip
            return _present(one_job(connection, job_id), job_id)

        return await self._database.do(work)

    async def get(self, owner: str, job_id: str) -> Job:
        """Raises ApiError where this owner has no such batch."""
        return _present(await self._database.do(lambda connection: one_job(connection, job_id, owner)), job_id)

    async def listed(self, owner: str, *, after: str | None, limit: int) -> tuple[list[Job], bool]:
        """A page, newest first, and whether more follow. after: the last batch of the page before."""

        def work(connection: sqlite3.Connection) -> list[Job]:
            number = None if after is None else _present(one_job(connection, after, owner), after, "after").number
            rows = connection.execute(
                f"SELECT {Job.columns()} FROM jobs WHERE owner = ?1 AND (?2 IS NULL OR number < ?2) "
                "ORDER BY number DESC LIMIT ?3",
                (owner, number, limit + 1),
            )
            return [Job.of(row) for row in rows]

        jobs = await self._database.do(work)
        return jobs[:limit], len(jobs) > limit

    async def cancel(self, owner: str, job_id: str) -> Job:
        """What runs of it ends soon; what is answered already is kept."""

        def work(connection: sqlite3.Connection) -> Job:
            job = _present(one_job(connection, job_id, owner), job_id)
            if job.status == CANCELLING:
                return job
            if not job.is_open:
                raise ApiError(409, f"the batch is {job.status} already: nothing is left to cancel", code="batch_ended")
            return _moved(connection, job, CANCELLING)

        return await self._database.do(work)

    async def open(self) -> list[Job]:
        """All that have not ended, whoever's, oldest first."""

        def work(connection: sqlite3.Connection) -> list[Job]:
            marks = ", ".join("?" * len(OPEN))
            rows = connection.execute(
                f"SELECT {Job.columns()} FROM jobs WHERE status IN ({marks}) ORDER BY number", OPEN
            )
            return [Job.of(row) for row in rows]

        return await self._database.do(work)

    async def begin(self, job: Job, rules: Rules) -> None:
        """Read its file: IN_PROGRESS with all lines to be answered, or FAILED with what is wrong."""

        def work(connection: sqlite3.Connection) -> None:
            current = _present(one_job(connection, job.id), job.id)
            if current.status != VALIDATING:
                return
            wrong = _take_lines(connection, current, rules)
            if wrong:
                connection.execute("DELETE FROM lines WHERE job = ?", (job.number,))
                connection.execute("UPDATE jobs SET errors = ? WHERE number = ?", (json.dumps(wrong), job.number))
                _moved(connection, current, FAILED)
            else:
                _moved(connection, current, IN_PROGRESS)

        await self._database.do(work)

    async def fail(self, job: Job, code: str, message: str) -> None:
        """End a batch that cannot be worked on; what is answered already is kept."""
        error = [{"code": code, "message": message, "line": None, "param": None}]

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE jobs SET errors = ? WHERE number = ?", (json.dumps(error), job.number))
            _end(connection, job, FAILED, code, message)

        await self._database.do(work)

    async def take(self, job: Job, running: Iterable[int]) -> tuple[Line, int] | None:
        """The first line that is neither answered nor running, and how often it was tried before. Counts the try."""
        numbers = tuple(running)

        def work(connection: sqlite3.Connection) -> tuple[Line, int] | None:
            marks = ", ".join("?" * len(numbers))
            row = connection.execute(
                "SELECT line, custom_id, url, body, attempts FROM lines WHERE job = ? AND succeeded IS NULL "
                f"AND line NOT IN ({marks}) ORDER BY line LIMIT 1",
                (job.number, *numbers),
            ).fetchone()
            if row is None:
                return None
            _count_attempt(connection, job, row[0], 1)
            return Line(*row[:4]), row[4]

        return await self._database.do(work)

    async def give_back(self, job: Job, line: int) -> None:
        """The try was ended before its time, by no fault of the line."""
        await self._database.do(lambda connection: _count_attempt(connection, job, line, -1))

    async def record(self, job: Job, line: int, answer: bytes, *, succeeded: bool) -> None:
        """Keep a line's answer; a second one, or one of a batch that has ended, changes nothing."""

        def work(connection: sqlite3.Connection) -> None:
            changed = connection.execute(
                "UPDATE lines SET answer = ?, succeeded = ?, body = x'' WHERE job = ? AND line = ? "
                "AND succeeded IS NULL",
                (answer, succeeded, job.number, line),
            ).rowcount
            name = "completed" if succeeded else "failed"
            connection.execute(f"UPDATE jobs SET {name} = {name} + ? WHERE number = ?", (changed, job.number))

        await self._database.do(work)

    async def end(self, job: Job, status: str, code: str, message: str) -> None:
        """Write the files of answers and errors in the order of the input; lines without an answer get this error."""
        await self._database.do(lambda connection: _end(connection, job, status, code, message))

    async def purge(self) -> None:
        await self._database.do(purge)


def error_line(custom_id: str, code: str, message: str) -> bytes:
    """Of a line that never came to a response."""
    error = {"code": code, "message": message}
    told = {"id": new_id("batch_req_"), "custom_id": custom_id, "response": None, "error": error}
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"


def _take_lines(connection: sqlite3.Connection, job: Job, rules: Rules) -> list[dict[str, Any]]:
    """What is wrong with the file; nothing: its lines are in the table."""
    file = one_file(connection, job.owner, job.input_file_id)
    if file is None:
        return [WrongLine(None, "file_deleted", "the input file has been deleted").told]
    wrong: list[dict[str, Any]] = []
    total = 0
    try:
        for number, text in rules_of.split(chunks_of(connection, file), rules.most_bytes):
            total += 1
            if total > rules.most_lines:
                raise WrongLine(None, "too_many_lines", f"the file has more than {rules.most_lines:,} lines: split it")
            try:
                _insert(connection, job, rules_of.read(number, text, rules))
            except WrongLine as error:
                wrong.append(error.told)
            if len(wrong) >= MOST_ERRORS:
                break
    except WrongLine as error:
        wrong.append(error.told)
    if not total:
        wrong.append(WrongLine(None, "empty_file", "the file has no lines").told)
    connection.execute("UPDATE jobs SET total = ? WHERE number = ?", (0 if wrong else total, job.number))
    return wrong


def _insert(connection: sqlite3.Connection, job: Job, line: Line) -> None:
    try:
        connection.execute(
            "INSERT INTO lines (job, line, custom_id, url, body) VALUES (?, ?, ?, ?, ?)",
            (job.number, line.number, line.custom_id, line.url, line.body),
        )
    except sqlite3.IntegrityError:
        raise WrongLine(
            line.number, "duplicate_custom_id", f"custom_id {line.custom_id!r:.100} occurs twice", "custom_id"
        ) from None


def _end(connection: sqlite3.Connection, job: Job, status: str, code: str, message: str) -> None:
    current = _present(one_job(connection, job.id), job.id)
    if not current.is_open:
        return
    if current.status == CANCELLING and status == COMPLETED:
        status = CANCELLED
    current = _moved(connection, current, "finalizing")
    for line, custom_id in connection.execute(
        "SELECT line, custom_id FROM lines WHERE job = ? AND succeeded IS NULL", (job.number,)
    ).fetchall():
        connection.execute(
            "UPDATE lines SET answer = ?, succeeded = 0 WHERE job = ? AND line = ?",
            (error_line(custom_id, code, message), job.number, line),
        )
        connection.execute("UPDATE jobs SET failed = failed + 1 WHERE number = ?", (job.number,))
    for column, name, succeeded in (("output_file_id", "output", 1), ("error_file_id", "errors", 0)):
        (count,) = connection.execute(
            "SELECT COUNT(*) FROM lines WHERE job = ? AND succeeded = ?", (job.number, succeeded)
        ).fetchone()
        if count:
            file = add_file(
                connection, job.owner, f"{job.id}_{name}.jsonl", OUTPUT,
                in_chunks(_answers(connection, job, succeeded)), seconds=job.output_seconds,
            )  # fmt: skip
            connection.execute(f"UPDATE jobs SET {column} = ? WHERE number = ?", (file.id, job.number))
    connection.execute("DELETE FROM lines WHERE job = ?", (job.number,))
    _moved(connection, current, status)


def _answers(connection: sqlite3.Connection, job: Job, succeeded: int) -> Iterator[bytes]:
    for (answer,) in connection.execute(
        "SELECT answer FROM lines WHERE job = ? AND succeeded = ? ORDER BY line", (job.number, succeeded)
    ):
        yield answer


def _moved(connection: sqlite3.Connection, job: Job, status: str) -> Job:
    times = {**json.loads(job.times), status: int(time.time())}
    values = (status, json.dumps(times), job.number)
    connection.execute("UPDATE jobs SET status = ?, times = ? WHERE number = ?", values)
    return _present(one_job(connection, job.id), job.id)


def _count_attempt(connection: sqlite3.Connection, job: Job, line: int, change: int) -> None:
    connection.execute(
        "UPDATE lines SET attempts = attempts + ? WHERE job = ? AND line = ?", (change, job.number, line)
    )


def _present(job: Job | None, job_id: str, param: str = "batch_id") -> Job:
    if job is None:
        raise ApiError(
            404, f"there is no batch {job_id!r:.100}: GET /v1/batches lists yours", param=param, code="not_found"
        )
    return job
