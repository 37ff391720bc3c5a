"""What an error comes of when the machine, not the request or the software, is at its end."""

import errno
import os
import sqlite3

_DESCRIPTORS = "file descriptors: allow it more (ulimit -n)"
_MEMORY = "memory: give it more, or lower --kv-cache-bytes, --max-num-seqs or --max-queue"
_BY_ERRNO = {errno.EMFILE: _DESCRIPTORS, errno.ENFILE: _DESCRIPTORS, errno.ENOMEM: _MEMORY}
_NO_THREAD = "can't start new thread"


def exhausted(error: BaseException) -> str | None:
    """What has run out, and the mend; None where the error comes of something else."""
    cause: BaseException | None = error
    for _ in range(20):
        if cause is None:
            break
        if (lack := _lack(cause)) is not None:
            return lack
        cause = cause.__cause__ or cause.__context__
    return None


def _lack(error: BaseException) -> str | None:
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_THREAD in str(error)):
        return _MEMORY
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        return _MEMORY if code == sqlite3.SQLITE_NOMEM else _opening() if code == sqlite3.SQLITE_CANTOPEN else None
    return _BY_ERRNO.get(error.errno or 0) if isinstance(error, OSError) else None


def _opening() -> str | None:
    """Why a file cannot be opened, which SQLite does not tell."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return _BY_ERRNO.get(error.errno or 0)
    return None
