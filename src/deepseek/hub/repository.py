"""A hub repository becomes a folder in huggingface_hub's own cache, where other tools find it too.

Every file is verified once, by size and by the hash that the hub announced, and the proof is recorded in our cache:
later runs look at stamps only. Without a network the recorded copy serves, or a whole one that another tool left.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from deepseek.errors import HubError
from deepseek.hub import record
from deepseek.hub.cache import locked, offline_wanted, require_space, storage_faults
from deepseek.hub.faults import Unreachable, hub_faults, offline_and_missing
from deepseek.hub.listing import Listing, RemoteFile, Selection, config_alone, select
from deepseek.hub.record import Verified
from deepseek.hub.snapshot import Storage, is_commit
from deepseek.hub.transfer import Part, WrongContent, fetch
from deepseek.progress import Report, silent

STREAMS = 4  # files at a time; one connection rarely fills a line


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked of the hub, and with which rights."""

    repo: str  # "org/name"
    variant: str | None = None
    revision: str | None = None
    token: str | None = None
    config_only: bool = False  # config.json without any weights

    @property
    def key(self) -> str:
        """What the commit that served is remembered under: a variant or a lone config.json is not the whole."""
        part = "#config" if self.config_only else f":{self.variant}" if self.variant else ""
        return f"{self.revision or 'main'}{part}"

    def select(self, listing: Listing) -> Selection:
        return config_alone(listing) if self.config_only else select(listing, self.variant)


def fetch_repository(
    wanted: Wanted, *, offline: bool = False, verify: bool = False, report: Report = silent
) -> tuple[Path, str]:
    """The folder or GGUF file in the cache, complete and verified, and its commit. Raises HubError.

    `verify` reads every byte again. Two processes may call this at once.
    """
    storage = Storage(repo=wanted.repo)
    listing, obstacle = _find_listing(wanted, storage, offline)
    chosen = wanted.select(listing)
    folder = storage.snapshot(listing.commit)
    if verify or storage.commit_of(wanted.key) != listing.commit or _unproven(storage, listing, chosen):
        with locked(f"hub--{wanted.repo.replace('/', '--')}", report), storage_faults(storage.files):
            _complete(wanted, storage, listing, chosen, obstacle, verify, report)
    return (folder / chosen.single if chosen.single else folder), listing.commit


def _find_listing(wanted: Wanted, storage: Storage, offline: bool) -> tuple[Listing, str]:
    """What the repository holds, and what keeps us from asking the hub ("" when nothing does)."""
    known = _remembered(wanted, storage)
    if offline or offline_wanted():
        obstacle = "this run is offline"
    elif known and wanted.revision and is_commit(wanted.revision):  # a commit never changes
        return known, ""
    else:
        try:
            return _ask_hub(wanted), ""
        except Unreachable as error:
            obstacle = error.cause
    if (known := known or storage.cached_listing(wanted.revision)) is None:
        raise offline_and_missing(wanted.repo, wanted.revision, obstacle)
    return known, obstacle


def _remembered(wanted: Wanted, storage: Storage) -> Listing | None:
    """What an earlier run saw and completed; a commit is its own name."""
    if wanted.revision and is_commit(wanted.revision):
        return storage.recorded_listing(wanted.revision)
    commit = storage.commit_of(wanted.key) or (storage.commit_of(wanted.revision or "main"))
    return storage.recorded_listing(commit) if commit else None


def _ask_hub(wanted: Wanted) -> Listing:
    from huggingface_hub import HfApi, constants

    with hub_faults(wanted.repo, wanted.revision):
        info = HfApi(endpoint=constants.ENDPOINT, token=wanted.token).model_info(
            wanted.repo, revision=wanted.revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
    files = []
    for sibling in info.siblings or []:
        digest = f"sha256:{sibling.lfs.sha256}" if sibling.lfs else f"git:{sibling.blob_id}"
        files.append(RemoteFile(name=sibling.rfilename, size=sibling.size or 0, digest=digest))
    return Listing(repo=wanted.repo, commit=info.sha or "", files=tuple(files))


def _unproven(storage: Storage, listing: Listing, chosen: Selection) -> bool:
    """Whether any file is missing, touched, or was never verified."""
    proven = storage.proven(listing.commit)
    names = [file.name for file in chosen.files]
    if not set(names) <= set(proven):
        return True
    return bool(record.damaged(storage.snapshot(listing.commit), {name: proven[name] for name in names}))


def _complete(
    wanted: Wanted,
    storage: Storage,
    listing: Listing,
    chosen: Selection,
    obstacle: str,
    verify: bool,
    report: Report,
) -> None:
    """Prove what is here, fetch the rest, record both."""
    proven = storage.proven(listing.commit)
    folder = storage.snapshot(listing.commit)
    missing = []
    for file in chosen.files:
        entry = _prove(folder / file.name, file, proven.get(file.name), verify, report)
        if entry is None:
            missing.append(file)
            proven.pop(file.name, None)
        else:
            proven[file.name] = entry
    if missing and obstacle:
        names = ", ".join(file.name for file in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise offline_and_missing(wanted.repo, wanted.revision, obstacle, names)
    if missing:
        _fetch_all(wanted, storage, listing, missing, proven, report)
    storage.remember(listing, proven)
    storage.point(wanted.key, listing.commit)


def _prove(path: Path, file: RemoteFile, known: Verified | None, verify: bool, report: Report) -> Verified | None:
    """The proof that `path` holds `file`: the known one if it still holds, else by reading all of it; else None."""
    if known and not record.damaged(path.parent, {path.name: known}, full=verify, report=report):
        return known
    if not path.is_file() or path.stat().st_size != file.size:
        return None
    digest = record.digest_of(path, file.digest or "sha256:", report)
    return record.verified(path, digest) if digest == file.digest or not file.digest else None


class _Meter:
    """Adds up what several threads bring; the first to fail stops the others at their next byte."""

    def __init__(self, label: str, total: int, report: Report) -> None:
        self._label, self._total, self._report = label, total, report
        self._lock = threading.Lock()
        self._done = 0
        self.stopped = False

    def arrived(self, count: int) -> None:
        if self.stopped:
            raise _Stopped
        with self._lock:
            self._done += count
            self._report(self._label, self._done, self._total)


class _Stopped(Exception):
    """Another thread failed."""


def _fetch_all(
    wanted: Wanted,
    storage: Storage,
    listing: Listing,
    missing: Sequence[RemoteFile],
    proven: dict[str, Verified],
    report: Report,
) -> None:
    total = sum(file.size for file in missing)
    require_space(storage.files, total - sum(_size(_part(storage, file)) for file in missing))
    meter = _Meter(f"downloading {wanted.repo}", total, report)
    remembering = threading.Lock()

    def bring(file: RemoteFile) -> None:
        try:
            entry = _fetch_one(wanted, storage, listing.commit, file, meter)
            with remembering:  # after each file: an interruption then costs no second reading
                proven[file.name] = entry
                storage.remember(listing, proven)
        except BaseException:
            meter.stopped = True
            raise

    with ThreadPoolExecutor(STREAMS, thread_name_prefix="deepseek-pull") as pool:
        tasks = [pool.submit(bring, file) for file in missing]
        try:
            failures = [error for task in tasks if (error := task.exception()) is not None]
        except BaseException:  # the user interrupted
            meter.stopped = True
            pool.shutdown(cancel_futures=True)
            raise
    if failures:
        raise next((error for error in failures if not isinstance(error, _Stopped)), failures[0])


def _part(storage: Storage, file: RemoteFile) -> Path:
    blob = storage.blob(file)
    return blob.with_name(f"{blob.name}.deepseek.incomplete")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch_one(wanted: Wanted, storage: Storage, commit: str, file: RemoteFile, meter: _Meter) -> Verified:
    """Bring the bytes under their hash, then let huggingface_hub place them in its snapshot."""
    from huggingface_hub import constants, hf_hub_download, hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    blob, pointer = storage.blob(file), storage.snapshot(commit) / file.name
    url = hf_hub_url(wanted.repo, file.name, revision=commit, endpoint=constants.ENDPOINT)
    with hub_faults(wanted.repo, wanted.revision):
        headers = build_hf_headers(token=wanted.token)
        try:
            fetch(url, headers, Part(_part(storage, file), file, meter.arrived), blob)
        except WrongContent:  # what an earlier run left was bad, or a byte fell over on the way: once more
            try:
                fetch(url, headers, Part(_part(storage, file), file, meter.arrived), blob)
            except WrongContent as error:
                raise HubError(
                    f"{wanted.repo}: {error}, twice: a proxy or the disk alters it, or the hub is at fault; "
                    "nothing was kept"
                ) from error
        if not pointer.is_symlink():  # a copy, where the system has no links
            pointer.unlink(missing_ok=True)
        hf_hub_download(
            wanted.repo, file.name, revision=commit, token=wanted.token, endpoint=constants.ENDPOINT,
            cache_dir=storage.files.parent,
        )  # fmt: skip
    if not pointer.samefile(blob) and record.digest_of(pointer, file.digest) != file.digest:
        raise HubError(f"{wanted.repo}: {pointer} does not hold what the hub announced: remove it and run again")
    return record.verified(pointer, file.digest)
