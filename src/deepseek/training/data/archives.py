"""Members of packages: wheels and other zip files, tarballs, Debian packages. Read as data, never unpacked.

What an archive announces is not believed: names, kinds, numbers and sizes are checked as they come (`members.Budget`),
and links are passed over, wherever they lead.
"""

import io
import lzma
import shutil
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from deepseek.errors import DataError
from deepseek.training.data.members import Budget, Member, Wanted, zstandard

_AR_MAGIC, _AR_HEADER = b"!<arch>\n", 60
_MAX_AR_MEMBERS = 16
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


def members_of(archive: Path, wanted: Wanted) -> Iterator[Member]:
    """The wanted members of a .whl, .zip, .tar.*, .tgz or .deb, in the order in which they are stored.

    Raises DataError when the archive is damaged or hostile.
    """
    budget = Budget(archive.name)
    try:
        if archive.suffix in (".whl", ".zip"):
            yield from _zipped(archive, wanted, budget)
        elif archive.suffix == ".deb":
            with _data_of_deb(archive) as stream:
                yield from _tarred(stream, wanted, budget)
        else:
            with archive.open("rb") as stream:
                yield from _tarred(stream, wanted, budget, outer=True)
    except _DAMAGE as error:
        raise DataError(f"{archive} is damaged ({error}): delete it and run the same again") from error


def _zipped(archive: Path, wanted: Wanted, budget: Budget) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            name = info.orig_filename.removesuffix("/")  # what the archive says, before it is made presentable
            budget.enter(name)
            kind = (info.external_attr >> 16) & 0o170000
            if info.is_dir() or kind not in (0, 0o100000) or name not in wanted:
                continue
            with opened.open(info) as source:
                yield budget.opened(name, budget.read(source, name))


def _tarred(stream: IO[bytes], wanted: Wanted, budget: Budget, *, outer: bool = False) -> Iterator[Member]:
    """outer: everything lies in one folder (sdists, npm), which patterns leave out."""
    with tarfile.open(fileobj=stream, mode="r|*") as opened:
        for info in opened:
            name = info.name.removeprefix("./").removesuffix("/")
            if name in ("", "."):
                continue
            budget.enter(name)
            name = name.partition("/")[2] if outer else name
            if not info.isreg() or name not in wanted:
                continue
            source = opened.extractfile(info)
            assert source is not None
            yield budget.opened(name, budget.read(source, name))


@contextmanager
def _data_of_deb(archive: Path) -> Iterator[IO[bytes]]:
    """The tarball of files in a Debian package, an `ar` archive: still compressed where `tarfile` can open it."""
    with archive.open("rb") as file:
        name, size = _find_data(file, archive)
        part = _Part(file, size)
        if not name.endswith(".zst"):
            yield part  # type: ignore[misc]
        elif (library := zstandard()) is not None:
            with library(part) as opened:  # type: ignore[arg-type]
                yield opened
        else:
            with _with_dpkg(archive) as opened:
                yield opened


def _find_data(file: IO[bytes], archive: Path) -> tuple[str, int]:
    """Leave `file` at the beginning of data.tar.*; return its name and size."""
    if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise DataError(f"{archive} is not a Debian package: delete it and run the same again")
    for _ in range(_MAX_AR_MEMBERS):
        header = file.read(_AR_HEADER)
        if len(header) < _AR_HEADER or header[58:] != b"`\n" or not header[48:58].strip().isdigit():
            break
        name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), int(header[48:58])
        if name.startswith("data.tar"):
            return name, size
        file.seek(size + size % 2, io.SEEK_CUR)
    raise DataError(f"{archive} holds no data.tar: delete it and run the same again")


class _Part(io.RawIOBase):
    """The next `size` bytes of a file, as a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._file.read(min(len(buffer), self._left))
        buffer[: len(block)] = block
        self._left -= len(block)
        return len(block)


@contextmanager
def _with_dpkg(archive: Path) -> Iterator[IO[bytes]]:
    if shutil.which("dpkg-deb") is None:
        raise DataError(
            f"{archive.name} is compressed with Zstandard, which this Python cannot read: install dpkg, or "
            "backports.zstd, or use Python 3.14"
        )
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        with process.stdout as stream:
            yield stream
    finally:
        process.kill()
        process.wait()
