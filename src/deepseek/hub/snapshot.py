"""A repository on the disk: huggingface_hub's cache with the files, ours with the proof of what they hold."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deepseek.errors import HubError
from deepseek.hub import record
from deepseek.hub.cache import cache_folder, safe_member, write_json
from deepseek.hub.listing import Listing, RemoteFile
from deepseek.hub.record import Verified

_COMMIT = re.compile(r"[0-9a-f]{40}")
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Where the files, blobs and records of the repository `repo` ("org/name") are."""

    repo: str

    @property
    def _records(self) -> Path:
        return cache_folder() / "hub" / self.repo.replace("/", "--")

    @property
    def files(self) -> Path:
        """The repository's folder in huggingface_hub's cache; its layout (blobs, refs, snapshots) is documented."""
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE).expanduser().absolute() / f"models--{self.repo.replace('/', '--')}"

    def snapshot(self, commit: str) -> Path:
        if not is_commit(commit):  # it becomes a path
            raise HubError(f"{self.repo}: {commit!r} is not a commit: run the same again, or name another revision")
        return self.files / "snapshots" / commit

    def blob(self, file: RemoteFile) -> Path:
        """Where the content is kept, under the hash that names it."""
        name = file.digest.partition(":")[2]
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name):
            raise HubError(f"{self.repo}: the hub gave no usable hash for {file.name!r} ({file.digest!r}): refused")
        return self.files / "blobs" / name

    def proven(self, commit: str) -> dict[str, Verified]:
        """What was verified of this commit so far."""
        found = record.load(self._records / f"{commit}.json")
        return found[0] if found else {}

    def remember(self, listing: Listing, proven: dict[str, Verified]) -> None:
        """Keep the proof and the listing, so that a run without a network finds its way."""
        record.save(self._records / f"{listing.commit}.json", proven, repo=listing.repo, listing=listing.to_json())

    def commit_of(self, key: str) -> str | None:
        """The commit that was last complete for a revision (and variant), as `point` was told."""
        commit = self._refs().get(key)
        return commit if commit is not None and is_commit(commit) else None

    def point(self, key: str, commit: str) -> None:
        if self._refs().get(key) != commit:
            write_json(self._records / "refs.json", {**self._refs(), key: commit})

    def _refs(self) -> dict[str, str]:
        try:
            value = json.loads((self._records / "refs.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def recorded_listing(self, commit: str) -> Listing | None:
        """The listing that an earlier run kept."""
        found = record.load(self._records / f"{commit}.json")
        try:
            return Listing.from_json(self.repo, commit, found[1]["listing"]) if found else None
        except (KeyError, TypeError):
            return None

    def cached_listing(self, revision: str | None) -> Listing | None:
        """What another tool left in huggingface_hub's cache, as far as it is a whole model."""
        commit = revision if revision and is_commit(revision) else self._cached_ref(revision or "main")
        if commit is None or not (folder := self.snapshot(commit)).is_dir():
            return None
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files = tuple(_as_remote(path, path.relative_to(folder).as_posix()) for path in paths)
        return Listing(repo=self.repo, commit=commit, files=files + tuple(_lacking(folder, files)))

    def _cached_ref(self, revision: str) -> str | None:
        if not safe_member(revision):
            return None
        try:
            commit = (self.files / "refs" / revision).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        return commit if is_commit(commit) else None


def is_commit(text: str) -> bool:
    return _COMMIT.fullmatch(text) is not None


def _as_remote(path: Path, name: str) -> RemoteFile:
    """The blob that a link points to is named by its hash."""
    blob = path.resolve().name
    kind = {64: "sha256:", 40: "git:"}.get(len(blob)) if re.fullmatch(r"[0-9a-f]+", blob) else None
    return RemoteFile(name=name, size=path.stat().st_size, digest=kind + blob if kind else "")


def _lacking(folder: Path, files: Iterable[RemoteFile]) -> Iterable[RemoteFile]:
    """Shards that the index names and the folder does not hold, as files of unknown content."""
    try:
        shards = set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        shards = set()
    for name in sorted(shards - {file.name for file in files}):
        yield RemoteFile(name=name, size=0, digest="")
