"""Files that appear whole or not at all: written beside their place, forced to disk, renamed."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from deepseek.errors import CheckpointError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A new binary file, readable and seekable, that takes the place of `path` when the block ends well.

    On any error the earlier file stays as it was and nothing is left behind. After a kill there may be a file
    `.NAME.XXXXXXXX.partial`, which nothing reads. Raises CheckpointError when the disk is full.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    with clear_disk_errors(path):
        try:
            with partial.open("x+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            sync_folder(path.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def clear_disk_errors(path: Path) -> Iterator[None]:
    """Turn what the system says of a full or read-only disk into a CheckpointError that names the mend."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise CheckpointError(
                f"no space left while writing {path}; free some space or choose another disk, then save again. "
                "What was there before is untouched"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            at = error.filename or path
            raise CheckpointError(f"{at}: cannot be used ({error.strerror}); choose another place") from error
        raise


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut. Where folders cannot be synced (Windows) this does nothing."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):
            raise
    finally:
        os.close(descriptor)
