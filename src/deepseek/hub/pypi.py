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
from contextlib import suppress
from pathlib import Path

from deepseek.errors import HubError
from deepseek.hub import record
from deepseek.hub.cache import StorageError, cache_folder, disk_full, locked, offline_wanted, storage_faults
from deepseek.hub.catalog import Pin, pin_of
from deepseek.hub.listing import is_gguf_model
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

    Without a version the catalog's serves if it pins one, else the newest copy in the cache, else what pip chooses.
    With a pin, given or the catalog's, the wheel must have its version and sha256. `verify` reads every byte again.
    Two processes may call this at once. Raises HubError.
    """
    name = _normal(package, version)
    pin = pin or pin_of(name, version)
    version = pin.version if pin else version
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


def download_wheel(package: str, version: str | None, folder: Path, report: Report = silent) -> Path:
    """The wheel itself, code and all, fetched into `folder` by pip and nothing but kept there. Raises HubError."""
    return _download(folder, _normal(package, version), version, None, report, offline=False)


def members(folder: Path) -> list[str]:
    """What an unpacked wheel holds, without its own bookkeeping."""
    found = record.load(folder / RECORD)
    names = found[0] if found else {}
    return sorted(name for name in names if not name.partition("/")[0].endswith((".dist-info", ".data")))


def model_in(folder: Path, package: str, file: str | None = None) -> Path:
    """The model in an unpacked wheel: `file` of it, else its one GGUF file, else its one folder of safetensors."""
    names = members(folder)
    if file is not None:
        if file not in names:
            raise HubError(f"pypi:{package} holds no {file!r}; it holds: {', '.join(names) or 'no data'}")
        return folder / file
    ggufs = [name for name in names if is_gguf_model(name)]
    folders = sorted({name.rpartition("/")[0] for name in names if name.endswith(".safetensors")})
    if len(ggufs) == 1:
        return folder / ggufs[0]
    if not ggufs and len(folders) == 1 and (folder / folders[0] / "config.json").is_file():
        return folder / folders[0]
    if len(ggufs) + len(folders) > 1:
        raise HubError(f"pypi:{package} holds several models; name one, as in pypi:{package}:{(ggufs + folders)[0]}")
    raise HubError(f"pypi:{package} carries no model: a .gguf file, or config.json beside .safetensors, is needed")


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
    if offline or offline_wanted():
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
                "the index in pip's configuration (`pip config list`) serves another file; use one that does not"
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
    """Size of all files, while pip moves and removes them: os.walk, unlike rglob, takes that calmly."""
    total = 0
    for where, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):
                total += os.stat(os.path.join(where, file)).st_size
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
    shutil.rmtree(home / "wheels", ignore_errors=True)
    _sweep(home)
    return final


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
