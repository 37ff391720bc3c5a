"""Stores in the cache: made when first needed, found again by what their source looks like from outside.

The key of a store is a hash over its source: of each file the name, size, time, inode and the first megabyte, where the
formats have their headers. Hashing all bytes would take longer than the start; `deepseek verify` does that.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from deepseek.checkpoint.checkpoint import Checkpoint, open_checkpoint
from deepseek.checkpoint.packed.choose import Quantize
from deepseek.checkpoint.packed.format import VERSION
from deepseek.checkpoint.packed.reader import PackedStore, is_store, open_store
from deepseek.checkpoint.packed.writer import write_store
from deepseek.errors import CheckpointError, ConfigError
from deepseek.hub.cache import cache_folder, locked, storage_faults
from deepseek.progress import Report, silent

_READING = 2  # counted up whenever the same files give another configuration than before
_HEADER_BYTES = 1 << 20
_PASSED_OVER = "-passed-over"
_PART = re.compile(r"(.+)-\d{5}-of-(\d{5})\.(gguf|safetensors)")
_DESCRIPTIONS = ("config.json", "model.safetensors.index.json")


def ensure_packed(
    source: Path | str | Checkpoint,
    *,
    quantize: Quantize = "auto",
    allow_unknown: bool = False,
    report: Report = silent,
) -> PackedStore:
    """The store of a checkpoint, from the cache or made now; a path to a store itself opens that.

    allow_unknown: as in `open_checkpoint`. A store that only this made possible has a name of its own, so that it never
    serves a caller who does not allow it.

    One process at a time packs a source. Raises CheckpointError, ConfigError or HubError (the cache cannot be used).
    """
    path = _whole(Path(source) if isinstance(source, str | Path) else source.path)
    if path.is_file() and is_store(path):
        return open_store(path)
    if store := _found(path, quantize, allow_unknown):
        return store
    folder = cache_folder() / "packed"
    with storage_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(f"packed-{_path_hash(path)}", report, "packs this model"):
        if store := _found(path, quantize, allow_unknown):
            return store
        with _opened_source(source, allow_unknown) as (checkpoint, passed_over):
            place = store_path(path, quantize, passed_over=passed_over)
            _remove_stale(folder, _stem(path))
            write_store(place, checkpoint, quantize=quantize, report=report)
        return open_store(place)


def store_path(source: Path, quantize: Quantize = "auto", *, passed_over: bool = False) -> Path:
    """Where the store of `source` is, or would be. Raises CheckpointError when there is no source.

    passed_over: the one that could be made only by passing over what this version does not know.
    """
    name = f"{_stem(_whole(source))}-{quantize}{_PASSED_OVER if passed_over else ''}.packed"
    return cache_folder() / "packed" / name


def stores_of(source: Path) -> list[Path]:
    """Every store in the cache that was made of `source` as it is now."""
    stem = _stem(_whole(source))
    return [
        path
        for choice in get_args(Quantize)
        for suffix in ("", _PASSED_OVER)
        if (path := cache_folder() / "packed" / f"{stem}-{choice}{suffix}.packed").is_file()
    ]


def _stem(source: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "_", source.absolute().stem)[:60]
    return f"{name}-{_path_hash(source)}-{_key(source)}"


def _found(path: Path, quantize: Quantize, allow_unknown: bool) -> PackedStore | None:
    store = _opened(store_path(path, quantize))
    return _opened(store_path(path, quantize, passed_over=True)) if store is None and allow_unknown else store


def _opened(place: Path) -> PackedStore | None:
    """None where there is no store, or one that was damaged: it is made again."""
    if not place.exists():
        return None
    try:
        return open_store(place)
    except CheckpointError:
        return None


@contextlib.contextmanager
def _opened_source(source: Path | str | Checkpoint, allow_unknown: bool) -> Iterator[tuple[Checkpoint, bool]]:
    """The checkpoint, and whether something had to be passed over to open it."""
    if not isinstance(source, str | Path):
        yield source, allow_unknown
        return
    checkpoint, passed_over = _open(source, allow_unknown)
    with checkpoint:
        yield checkpoint, passed_over


def _open(source: Path | str, allow_unknown: bool) -> tuple[Checkpoint, bool]:
    try:
        return open_checkpoint(source), False
    except (CheckpointError, ConfigError):
        if not allow_unknown:
            raise
    return open_checkpoint(source, allow_unknown=True), True


def _whole(source: Path) -> Path:
    """One name for all parts of a model: the first GGUF, or the folder of shards."""
    if source.name in _DESCRIPTIONS:
        return source.parent
    part = _PART.fullmatch(source.name)
    if part is None:
        return source
    return source.parent if part[3] == "safetensors" else source.with_name(f"{part[1]}-00001-of-{part[2]}.gguf")


def _path_hash(source: Path) -> str:
    return hashlib.blake2b(os.fsencode(source.resolve()), digest_size=6).hexdigest()


def _key(source: Path) -> str:
    digest = hashlib.blake2b(f"version {VERSION}, reading {_READING}\0".encode(), digest_size=12)
    files = _files_of(source)
    if not files:
        if source.is_dir():
            raise CheckpointError(f"{source}: no model in this folder; expected .safetensors or .gguf files")
        raise CheckpointError(f"{source}: no such checkpoint")
    try:
        for path in files:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                facts = (path.name, status.st_size, status.st_mtime_ns, status.st_ino)
                digest.update(f"{facts!r}\0".encode() + file.read(_HEADER_BYTES))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def _files_of(source: Path) -> list[Path]:
    """Every file that `open_checkpoint` may read for `source`."""
    if source.is_dir():
        kinds = (".safetensors", ".gguf", "")  # a blob of GGUF may have no suffix
        files = (path for path in source.iterdir() if path.name in _DESCRIPTIONS or path.suffix.lower() in kinds)
        return sorted(path for path in files if path.is_file())
    if source.suffix == ".safetensors":
        return _files_of(source.parent)
    if part := _PART.fullmatch(source.name):
        return sorted(source.parent.glob(f"{_escaped(part[1])}-*-of-{part[2]}.gguf"))
    return [source] if source.is_file() else []


def _escaped(text: str) -> str:
    return re.sub(r"([\[*?])", r"[\1]", text)


def _remove_stale(folder: Path, current: str) -> None:
    """Stores that the same path had before it changed, and what killed processes left of it. Its lock is held."""
    of_path = current.rsplit("-", 1)[0]
    for path in folder.iterdir():
        name = path.name.removeprefix(".")
        stale = name.endswith(".packed") and not name.startswith(current + "-")
        if name.startswith(of_path + "-") and (stale or name.endswith(".partial")):
            with contextlib.suppress(OSError):  # on Windows an open file stays
                path.unlink()
