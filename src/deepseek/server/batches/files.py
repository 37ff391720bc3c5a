"""What may be done to files. A file is seen by its owner alone; its name is a label and never a path."""

import sqlite3
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from typing import IO

from deepseek.server.batches.database import Database
from deepseek.server.batches.records import StoredFile, new_id, one_file
from deepseek.server.errors import ApiError

CHUNK_BYTES = 1 << 20
INPUT, OUTPUT = "batch", "batch_output"


class Files:
    """most_bytes: that one owner may store."""

    def __init__(self, database: Database, *, most_bytes: int) -> None:
        self._database = database
        self._most_bytes = most_bytes

    async def add(self, owner: str, filename: str, content: IO[bytes], *, seconds: int | None = None) -> StoredFile:
        """Store a file to be read by batches. seconds: until it is deleted. Raises ApiError where there is no room."""

        def work(connection: sqlite3.Connection) -> StoredFile:
            purge(connection)
            (stored,) = connection.execute(
                "SELECT COALESCE(SUM(bytes), 0) FROM files WHERE owner = ?", (owner,)
            ).fetchone()
            file = add_file(connection, owner, filename, INPUT, read_chunks(content), seconds=seconds)
            if stored + file.bytes > self._most_bytes:
                raise ApiError(
                    413, f"your files would take more than {self._most_bytes:,} bytes together: delete some",
                    param="file", code="storage_limit",
                )  # fmt: skip
            return file

        return await self._database.do(work)

    async def get(self, owner: str, file_id: str) -> StoredFile:
        """Raises ApiError where this owner has no such file."""
        return found(await self._database.do(lambda connection: one_file(connection, owner, file_id)), file_id)

    async def listed(
        self, owner: str, *, purpose: str | None, after: str | None, limit: int, descending: bool
    ) -> tuple[list[StoredFile], bool]:
        """A page, and whether more follow. after: the last file of the page before."""

        def work(connection: sqlite3.Connection) -> list[StoredFile]:
            number = None if after is None else found(one_file(connection, owner, after), after, "after").number
            order, beyond = ("DESC", "<") if descending else ("ASC", ">")
            rows = connection.execute(
                f"SELECT {StoredFile.columns()} FROM files WHERE owner = ?1 AND (?2 IS NULL OR purpose = ?2) "
                f"AND (?3 IS NULL OR number {beyond} ?3) AND (expires_at IS NULL OR expires_at > ?4) "
                f"ORDER BY number {order} LIMIT ?5",
                (owner, purpose, number, int(time.time()), limit + 1),
            )
            return [StoredFile.of(row) for row in rows]

        files = await self._database.do(work)
        return files[:limit], len(files) > limit

    async def content(self, file: StoredFile) -> AsyncIterator[bytes]:
        """Its bytes, some at a time; ends early if it is deleted meanwhile."""
        for place in range(-(-file.bytes // CHUNK_BYTES)):
            data = await self._database.do(partial(_chunk, number=file.number, place=place))
            if data is None:
                return
            yield data

    async def delete(self, owner: str, file_id: str) -> None:
        """What batches have read of it already stays with them."""
        deleted = await self._database.do(
            lambda connection: (
                connection.execute("DELETE FROM files WHERE id = ? AND owner = ?", (file_id, owner)).rowcount
            )
        )
        if not deleted:
            raise _missing(file_id)


def add_file(
    connection: sqlite3.Connection, owner: str, filename: str, purpose: str, chunks: Iterable[bytes], *,
    seconds: int | None = None,
) -> StoredFile:  # fmt: skip
    """chunks: all of CHUNK_BYTES, but for the last."""
    now = int(time.time())
    expires_at = None if seconds is None else now + seconds
    file_id = new_id("file-")
    number = connection.execute(
        "INSERT INTO files (id, owner, filename, purpose, bytes, created_at, expires_at) VALUES (?, ?, ?, ?, 0, ?, ?)",
        (file_id, owner, filename, purpose, now, expires_at),
    ).lastrowid
    assert number is not None
    length = 0
    for place, data in enumerate(chunks):
        connection.execute("INSERT INTO chunks (file, place, data) VALUES (?, ?, ?)", (number, place, data))
        length += len(data)
    connection.execute("UPDATE files SET bytes = ? WHERE number = ?", (length, number))
    return StoredFile(number, file_id, owner, filename, purpose, length, now, expires_at)


def read_chunks(content: IO[bytes]) -> Iterator[bytes]:
    while data := content.read(CHUNK_BYTES):
        yield data


def in_chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of CHUNK_BYTES."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= CHUNK_BYTES:
            yield bytes(held[:CHUNK_BYTES])
            del held[:CHUNK_BYTES]
    if held:
        yield bytes(held)


def chunks_of(connection: sqlite3.Connection, file: StoredFile) -> Iterator[bytes]:
    place = 0
    while (data := _chunk(connection, file.number, place)) is not None:
        yield data
        place += 1


def purge(connection: sqlite3.Connection) -> None:
    """Delete what has expired."""
    connection.execute("DELETE FROM files WHERE expires_at <= ?", (int(time.time()),))


def found(file: StoredFile | None, file_id: str, param: str = "file_id") -> StoredFile:
    if file is None or (file.expires_at is not None and file.expires_at <= time.time()):
        raise _missing(file_id, param)
    return file


def _missing(file_id: str, param: str = "file_id") -> ApiError:
    return ApiError(404, f"there is no file {file_id!r:.100}: GET /v1/files lists yours", param=param, code="not_found")


def _chunk(connection: sqlite3.Connection, number: int, place: int) -> bytes | None:
    row = connection.execute("SELECT data FROM chunks WHERE file = ? AND place = ?", (number, place)).fetchone()
    return None if row is None else row[0]
