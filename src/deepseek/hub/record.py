"""What was verified, once: size and hash of every file, and the stamp that tells whether it was touched since."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deepseek.hub.cache import write_json
from deepseek.progress import Report, silent

CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Verified:
    """One file that had these bytes when its stamp was `mtime_ns`.

    digest: "sha256:..." of the content, or "git:..." for the name that git gives it as a blob.
    """

    size: int
    digest: str
    mtime_ns: int


def digest_of(path: Path, like: str, report: Report = silent, label: str = "") -> str:
    """Hash of the file in the same kind as `like`; reads all of it."""
    size = path.stat().st_size
    kind = like.partition(":")[0]
    hasher = hashlib.sha256() if kind == "sha256" else git_hasher(size)
    done = 0
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            hasher.update(block)
            done += len(block)
            report(label or f"verifying {path.name}", done, size)
    return f"{kind}:{hasher.hexdigest()}"


def git_hasher(size: int) -> "hashlib._Hash":
    """SHA-1 primed with git's header: the hub names files outside its large-file store so."""
    return hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)


def verified(path: Path, digest: str) -> Verified:
    """Entry for a file whose digest the caller has just checked."""
    stat = path.stat()
    return Verified(size=stat.st_size, digest=digest, mtime_ns=stat.st_mtime_ns)


def damaged(folder: Path, files: Mapping[str, Verified], *, full: bool = False, report: Report = silent) -> list[str]:
    """Names that are missing or no longer hold what was verified.

    An untouched stamp is believed unless `full`; a touched one is settled by the hash.
    """
    return [name for name, entry in files.items() if not _intact(folder / name, entry, full, report)]


def _intact(path: Path, entry: Verified, full: bool, report: Report) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    if stat.st_size != entry.size:
        return False
    if stat.st_mtime_ns == entry.mtime_ns and not full:
        return True
    return digest_of(path, entry.digest, report) == entry.digest


def save(path: Path, files: Mapping[str, Verified], **facts: Any) -> None:
    """Write the record atomically; `facts` are plain JSON values kept beside the files."""
    write_json(path, {**facts, "files": {name: asdict(entry) for name, entry in files.items()}})


def load(path: Path) -> tuple[dict[str, Verified], dict[str, Any]] | None:
    """The files and facts of a record, or None when there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        files = {str(name): Verified(**entry) for name, entry in value.pop("files").items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return files, value
