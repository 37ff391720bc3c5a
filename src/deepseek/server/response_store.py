"""Responses that are kept, so that the next one can go on from them: in memory, or in an SQLite file of their own.

Not in the file of batches, though both are SQLite: that file has one writer at a time, which storing 200 MB or
beginning 50,000 lines occupies for seconds, and the end of every chat would wait for it. Nor are conversations
written to a disk unless somebody asks for that, and they may be lost with the machine's power, which answers to
batches may not.
"""

import os
import sqlite3
import threading
from pathlib import Path

from deepseek.errors import ConfigError
from deepseek.server.storage_faults import storage_faults

_VERSION = 1
_SCHEMA = """
CREATE TABLE responses (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL,
    response BLOB NOT NULL, items BLOB NOT NULL
) STRICT;
CREATE INDEX responses_of_tenant ON responses (tenant, number);
"""


class ResponseStore:
    """Each tenant sees its own alone, and has so many bytes; beyond them its oldest are forgotten. Any thread.

    Each response lies beside all items of its conversation, so that forgetting an earlier one breaks no later one.
    """

    def __init__(self, path: str | None, most_bytes: int) -> None:
        """path: of the file; None: in memory. Raises ConfigError for a file that cannot be used."""
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        try:
            if path is not None:
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._database = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            name = Path(path or "").name
            raise ConfigError(f"response_store: {name} cannot be used ({error}): choose another file") from None
        rows = self._database.execute(f"SELECT tenant, SUM({_SIZE}) FROM responses GROUP BY tenant")
        self._bytes: dict[str, int] = dict(rows)

    def put(self, tenant: str, response_id: str, response: bytes, items: bytes) -> None:
        """The newest is kept whatever its length. As all methods, raises ApiError where the disk is full or fails."""
        with storage_faults(), self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute(
                "INSERT INTO responses (id, tenant, response, items) VALUES (?, ?, ?, ?)",
                (response_id, tenant, response, items),
            )
            total = self._bytes.get(tenant, 0) + len(response) + len(items)
            oldest = self._database.execute(
                f"SELECT number, {_SIZE} FROM responses WHERE tenant = ? AND id != ? ORDER BY number",
                (tenant, response_id),
            )
            leaving: list[tuple[int]] = []
            while total > self._most_bytes and (row := oldest.fetchone()) is not None:
                leaving.append((row[0],))
                total -= row[1]
            self._database.executemany("DELETE FROM responses WHERE number = ?", leaving)
        self._bytes[tenant] = total

    def response(self, tenant: str, response_id: str) -> bytes | None:
        """As it was put."""
        return self._column("response", tenant, response_id)

    def items(self, tenant: str, response_id: str) -> bytes | None:
        """As they were put."""
        return self._column("items", tenant, response_id)

    def items_with(self, tenant: str, item_id: str) -> bytes | None:
        """Those of the newest conversation in which this text occurs, as it does where an item has this id."""
        with storage_faults(), self._lock:
            row = self._database.execute(
                "SELECT items FROM responses WHERE tenant = ? AND instr(items, CAST(? AS BLOB)) ORDER BY number DESC",
                (tenant, item_id),
            ).fetchone()
        return None if row is None else row[0]

    def delete(self, tenant: str, response_id: str) -> bool:
        """Whether it was there."""
        with storage_faults(), self._lock:
            row = self._database.execute(
                f"DELETE FROM responses WHERE tenant = ? AND id = ? RETURNING {_SIZE}", (tenant, response_id)
            ).fetchone()
            if row is not None:
                self._bytes[tenant] -= row[0]
        return row is not None

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _column(self, name: str, tenant: str, response_id: str) -> bytes | None:
        with storage_faults(), self._lock:
            row = self._database.execute(
                f"SELECT {name} FROM responses WHERE tenant = ? AND id = ?", (tenant, response_id)
            ).fetchone()
        return None if row is None else row[0]

    def _prepare(self) -> None:
        database = self._database
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise sqlite3.DatabaseError(f"it has format {version}, this software writes {_VERSION}")


_SIZE = "LENGTH(response) + LENGTH(items)"
