"""One package's file in the downloads folder: brought by its registry's client, its sha256 recorded and held to.

pip, apt-get and npm do the talking where they can, so the user's configuration of them (index, mirror, proxy,
certificates) holds and what they check is checked. Their hooks and build steps never run: a source distribution, for
which pip would run the package's code, is read from the index itself (see `simple_index`).
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deepseek.checkpoint.atomic import atomic_file
from deepseek.errors import DataError, HubError
from deepseek.hub.cache import offline_wanted
from deepseek.hub.pypi import download_wheel
from deepseek.progress import Report, silent
from deepseek.training.data.fetch.simple_index import download_sdist
from deepseek.training.data.recipe import SourceConfig

_NAME = re.compile(r"(@[a-z0-9][a-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._+-]*")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+:~!-]*")
_POLL_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Package:
    """A file that is there and has this hash. version: as far as the file's name tells."""

    path: Path
    sha256: str
    version: str


def fetch_package(source: SourceConfig, downloads: Path, *, report: Report = silent, offline: bool = False) -> Package:
    """The package's file, from the folder or the registry.

    Raises DataError when it is not the file that the recipe or the record of the first download says, HubError when it
    cannot be had.
    """
    package, version = _checked(source)
    folder = downloads / source.kind / package.replace("/", "--")
    record = folder / f"{version or 'newest'}.json"
    if (found := _recorded(record, source)) is not None:
        return found
    if offline or offline_wanted():
        raise HubError(
            f"source {source.name}: {source.kind} {package} is not in {folder} and this run is offline: run it once "
            "with a network, or copy that folder from a machine that has it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".download-", dir=folder))
    try:
        fetched = _FETCHERS[source.kind](package, version, staging, report)
        sha256 = _hash(fetched)
        _require(source, source.sha256, sha256, fetched.name)
        kept = folder / fetched.name
        os.replace(fetched, kept)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    found = Package(path=kept, sha256=sha256, version=version or _version_in(kept.name))
    with atomic_file(record) as file:
        file.write(json.dumps({"file": kept.name, "sha256": sha256, "version": found.version}).encode())
    return found


def _checked(source: SourceConfig) -> tuple[str, str | None]:
    """Name and version, neither of which a client could take for an option, an address or a file."""
    assert source.package is not None
    if not _NAME.fullmatch(source.package) or ".." in source.package:
        raise DataError(f"source {source.name}: {source.package!r:.80} is not a package name")
    if source.version is not None and not _VERSION.fullmatch(source.version):
        raise DataError(f"source {source.name}: {source.version!r:.80} is not a version")
    return source.package, source.version


def _recorded(record: Path, source: SourceConfig) -> Package | None:
    """What an earlier run fetched; None when there is none. A file that changed since is an error."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        path, sha256, version = record.parent / Path(known["file"]).name, str(known["sha256"]), str(known["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not path.is_file():
        return None
    _require(source, sha256, _hash(path), str(path))
    _require(source, source.sha256, sha256, str(path))
    return Package(path=path, sha256=sha256, version=version)


def _require(source: SourceConfig, expected: str | None, actual: str, what: str) -> None:
    if expected is not None and actual != expected:
        raise DataError(
            f"source {source.name}: {what} has sha256 {actual}, not {expected}: delete it and run again; if it stays "
            "so, the registry serves another file than the recipe was written for"
        )


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version_in(name: str) -> str:
    found = re.search(r"[-_](\d[^_/]*?)(-py\d.*|_[a-z0-9]+)?\.(whl|deb|tgz|tar\.\w+|zip)$", name)
    return found[1].replace("%3a", ":") if found else ""


def _wheel(package: str, version: str | None, staging: Path, report: Report) -> Path:
    return download_wheel(package, version, staging, report)


def _deb(package: str, version: str | None, staging: Path, report: Report) -> Path:
    wanted = f"{package}={version}" if version else package
    advice = (
        f"see which versions there are (`apt-cache policy {package}`), run `apt-get update`, "
        "or leave the source out (--without)"
    )
    return _run(["apt-get", "download", wanted], wanted, staging, report, "*.deb", "a Debian or Ubuntu system", advice)


def _npm(package: str, version: str | None, staging: Path, report: Report) -> Path:
    wanted = f"{package}@{version}" if version else package
    command = ["npm", "pack", wanted, "--pack-destination", ".", "--ignore-scripts", "--silent"]
    advice = "check the name, the version and npm's configuration, or leave the source out (--without)"
    return _run(command, wanted, staging, report, "*.tgz", "Node's package manager", advice)


def _run(command: list[str], wanted: str, staging: Path, report: Report, pattern: str, needs: str, advice: str) -> Path:
    """Run a client in `staging` and return the one file it left there."""
    if shutil.which(command[0]) is None:
        raise HubError(f"{wanted} needs {command[0]} ({needs}), which is not here: leave the source out (--without)")
    log = staging / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=staging, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            while process.poll() is None:
                done = sum(path.stat().st_size for path in staging.glob(pattern))
                report(f"downloading {wanted}", done, None)
                time.sleep(_POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    files = sorted(staging.glob(pattern))
    if process.returncode != 0 or len(files) != 1:
        told = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()][-2:]
        raise HubError(f"{command[0]} could not bring {wanted} ({' / '.join(told) or 'it said nothing'}): {advice}")
    report(f"downloading {wanted}", 1, 1)
    return files[0]


_FETCHERS: dict[str, Callable[[str, str | None, Path, Report], Path]] = {
    "wheel": _wheel,
    "sdist": download_sdist,
    "deb": _deb,
    "npm": _npm,
}
