"""What a full or failing disk does to SQLite, as errors that a client may see."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from deepseek.server.errors import ApiError, out_of

_FULL_PAUSE_SECONDS = 30.0


@contextmanager
def storage_faults() -> Iterator[None]:
    """Raises ApiError for everything but a broken rule of the tables."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise ApiError(
                507, "the server's disk is full: delete files, or tell whoever runs the server", code="disk_full",
                retry_after=_FULL_PAUSE_SECONDS,
            ) from error  # fmt: skip
        raise out_of(error) or ApiError(500, "the server's storage failed; its log says why", code="storage") from error
