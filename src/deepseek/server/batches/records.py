"""What is stored of files and batches, and what clients see of it: OpenAI's objects."""

import json
import secrets
import sqlite3
from dataclasses import dataclass, fields
from typing import Any, Self

VALIDATING, IN_PROGRESS, CANCELLING = "validating", "in_progress", "cancelling"
COMPLETED, FAILED, EXPIRED, CANCELLED = "completed", "failed", "expired", "cancelled"
OPEN = (VALIDATING, IN_PROGRESS, CANCELLING)
_TIMES = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


class _Row:
    """Read from a table with columns of the same names."""

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> Self:
        return cls(*row)

    @classmethod
    def columns(cls) -> str:
        return ", ".join(each.name for each in fields(cls))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class StoredFile(_Row):
    """owner: who alone may see it. Times in seconds since 1970."""

    number: int
    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int | None

    def told(self) -> dict[str, Any]:
        told = {
            "id": self.id, "object": "file", "bytes": self.bytes, "created_at": self.created_at,
            "filename": self.filename, "purpose": self.purpose, "status": "processed",
        }  # fmt: skip
        return told if self.expires_at is None else {**told, "expires_at": self.expires_at}


@dataclass(frozen=True, slots=True)
class Job(_Row):
    """A batch. key_name: the API key that pays. endpoint None: a line may name any. times: when it came to a status.

    output_seconds: after which its results are deleted; None: never.
    """

    number: int
    id: str
    owner: str
    key_name: str | None
    endpoint: str | None
    model: str
    input_file_id: str
    completion_window: str
    metadata: str | None
    status: str
    times: str
    errors: str | None
    output_file_id: str | None
    error_file_id: str | None
    output_seconds: int | None
    expires_at: int
    total: int
    completed: int
    failed: int

    @property
    def is_open(self) -> bool:
        return self.status in OPEN

    def told(self) -> dict[str, Any]:
        times = json.loads(self.times)
        errors = None if self.errors is None else {"object": "list", "data": json.loads(self.errors)}
        return {
            "id": self.id, "object": "batch", "endpoint": self.endpoint, "model": self.model, "errors": errors,
            "input_file_id": self.input_file_id, "completion_window": self.completion_window, "status": self.status,
            "output_file_id": self.output_file_id, "error_file_id": self.error_file_id,
            "created_at": times["created"], "expires_at": self.expires_at,
            **{f"{name}_at": times.get(name) for name in _TIMES},
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "metadata": None if self.metadata is None else json.loads(self.metadata),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """A request of a batch. number: from 1, as in the file."""

    number: int
    custom_id: str
    url: str
    body: bytes


def new_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(12)}"


def one_file(connection: sqlite3.Connection, owner: str, file_id: str) -> StoredFile | None:
    """The file of that id, if it is this owner's."""
    row = connection.execute(
        f"SELECT {StoredFile.columns()} FROM files WHERE id = ? AND owner = ?", (file_id, owner)
    ).fetchone()
    return None if row is None else StoredFile.of(row)


def one_job(connection: sqlite3.Connection, job_id: str, owner: str | None = None) -> Job | None:
    """The batch of that id, if it is this owner's; None: whoever's."""
    row = connection.execute(
        f"SELECT {Job.columns()} FROM jobs WHERE id = ?1 AND (?2 IS NULL OR owner = ?2)", (job_id, owner)
    ).fetchone()
    return None if row is None else Job.of(row)
