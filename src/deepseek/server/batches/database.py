"""An SQLite file that one process at a time uses, from one thread of its own.

Everything that belongs together is one transaction, so that a kill at any moment leaves all of it or nothing.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from deepseek.errors import ConfigError
from deepseek.server.storage_faults import storage_faults

NAME = "batches.sqlite"
_VERSION = 1
_SCHEMA = """
CREATE TABLE files (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, filename TEXT NOT NULL,
    purpose TEXT NOT NULL, bytes INTEGER NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER
) STRICT;
CREATE INDEX files_of_owner ON files (owner, number);
CREATE TABLE chunks (
    file INTEGER NOT NULL REFERENCES files (number) ON DELETE CASCADE, place INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (file, place)
) STRICT;
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, key_name TEXT,
    endpoint TEXT, model TEXT NOT NULL, input_file_id TEXT NOT NULL, completion_window TEXT NOT NULL,
    metadata TEXT, status TEXT NOT NULL, times TEXT NOT NULL, errors TEXT, output_file_id TEXT, error_file_id TEXT,
    output_seconds INTEGER, expires_at INTEGER NOT NULL, total INTEGER NOT NULL DEFAULT 0,
    completed INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX jobs_of_owner ON jobs (owner, number);
CREATE INDEX jobs_by_status ON jobs (status);
CREATE TABLE lines (
    job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE, line INTEGER NOT NULL, custom_id TEXT NOT NULL,
    url TEXT NOT NULL, body BLOB NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, answer BLOB, succeeded INTEGER,
    PRIMARY KEY (job, line), UNIQUE (job, custom_id)
) STRICT;
CREATE INDEX unanswered ON lines (job, line) WHERE succeeded IS NULL;
"""

Result = TypeVar("Result")


class FolderInUse(Exception):
    """Another process works with this folder."""


class Database:
    """Opened at once. Raises FolderInUse, or ConfigError for a folder or file that cannot be used."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = FileLock(folder / f"{NAME}.lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise FolderInUse(str(folder)) from None
        except OSError as error:
            raise ConfigError(f"data_dir {folder}: cannot be used ({error.strerror}); choose another") from None
        try:
            self._connection = _opened(self.path)
        except BaseException:
            self._lock.release()
            raise
        self._thread = ThreadPoolExecutor(1, "deepseek-batches")

    async def do(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """The result of `work` in the database's thread, as one transaction: all of it happens or nothing."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, work)

    def _transaction(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        with storage_faults():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            return result

    def close(self) -> None:
        """What was given to `do` is done first."""
        self._thread.shutdown(wait=True)
        self._connection.close()
        self._lock.release()


def _opened(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise ConfigError(f"{path}: cannot be opened ({error}); give another --data-dir") from None
    try:
        path.chmod(0o600)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "trusted_schema = OFF"):
            connection.execute(f"PRAGMA {pragma}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise ConfigError(f"{path} was written by another version ({version}): move it away, or give --data-dir")
    except (sqlite3.Error, OSError) as error:
        connection.close()
        raise ConfigError(f"{path}: cannot be used ({error}); move it away, or give another --data-dir") from None
    except ConfigError:
        connection.close()
        raise
    return connection
