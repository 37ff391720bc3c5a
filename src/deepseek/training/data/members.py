"""Named pieces of a source: files of a folder (see `local_files`) or members of an archive, read under stated limits.

Nothing is ever unpacked to the disk, so a hostile name has nowhere to lead; it is refused all the same. A member that
is itself compressed (`.gz`, `.xz`, `.bz2`, `.zst` ...) is opened, and may not grow past the limit either.
"""

import bz2
import importlib
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from deepseek.errors import DataError
from deepseek.hub.cache import in_units

MAX_MEMBER_BYTES = 1 << 30
MAX_TOTAL_BYTES = 8 << 30
MAX_MEMBERS = 1_000_000
MAX_RATIO = 250  # unpacked over packed bytes, beyond MAX_MEMBER_BYTES: text has 2 to 20, a decompression bomb 1000
_CHUNK = 1 << 20
DAMAGE = (EOFError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class Member:
    """One file: its name with `/` between the parts, and what is in it: bytes, or a local file that is read when asked.

    A local file's name is relative to its source, without the suffix of a compression that is opened.
    """

    name: str
    content: bytes | Path

    @property
    def where(self) -> str:
        """For messages: the whole path of a local file."""
        return str(self.content) if isinstance(self.content, Path) else self.name

    @property
    def hint(self) -> str:
        """How to leave it out."""
        suffix = _layer_of(self.content.name) if isinstance(self.content, Path) else ""
        return f'exclude = ["{self.name}{suffix}"]'

    @property
    def data(self) -> bytes:
        """All of it, for readers that cannot stream. Raises DataError past MAX_MEMBER_BYTES."""
        if isinstance(self.content, bytes):
            return self.content
        blocks, size = [], 0
        for block in self.blocks():
            size += len(block)
            if size > MAX_MEMBER_BYTES:
                raise DataError(
                    f"{self.where}: is larger than {in_units(MAX_MEMBER_BYTES)}, and this format is read as a whole: "
                    f"split the file, use jsonl or text, or leave it out: {self.hint}"
                )
            blocks.append(block)
        return b"".join(blocks)

    def blocks(self) -> Iterator[bytes]:
        """Piece by piece, so that memory does not grow with the file. Raises DataError."""
        if isinstance(self.content, bytes):
            for start in range(0, len(self.content), _CHUNK):
                yield self.content[start : start + _CHUNK]
            return
        with self.opened() as (file, packed):
            size = 0
            while block := file.read(_CHUNK):
                size += len(block)
                if packed is not None and size > max(MAX_MEMBER_BYTES, packed * MAX_RATIO):
                    raise DataError(f"{self.where}: grows past {MAX_RATIO} times its size: refused")
                yield block

    @contextmanager
    def opened(self) -> Iterator[tuple[IO[bytes], int | None]]:
        """A local file, its layer of compression opened, and its packed size if there is such a layer."""
        assert isinstance(self.content, Path)
        try:
            with self.content.open("rb") as file:
                if suffix := _layer_of(self.content.name):
                    size = self.content.stat().st_size
                    with LAYERS[suffix](file) as layer:
                        yield layer, size
                else:
                    yield file, None
        except OSError as error:
            what = "is damaged" if error.errno is None else "cannot be read"
            raise DataError(f"{self.where}: {what} ({error.strerror or error}); or leave it out: {self.hint}") from None
        except DAMAGE as error:
            raise DataError(f"{self.where}: is damaged ({error}); or leave it out: {self.hint}") from None


@dataclass
class Budget:
    """What an archive may still hold. `where` names it in messages."""

    where: str
    bytes_left: int = MAX_TOTAL_BYTES
    members_left: int = MAX_MEMBERS

    def enter(self, name: str) -> None:
        """Count a member, wanted or not, and refuse a name that leaves a folder."""
        self.members_left -= 1
        if self.members_left < 0:
            raise DataError(f"{self.where} holds more than {MAX_MEMBERS:,} members: refused")
        if name.startswith("/") or "\0" in name or ".." in name.replace("\\", "/").split("/"):
            raise DataError(f"{self.where} holds a member whose path leaves the folder, {name!r:.200}: refused")

    def read(self, source: IO[bytes], name: str) -> bytes:
        """All of a member, never more than the limits, whatever its header announced."""
        limit = min(MAX_MEMBER_BYTES, self.bytes_left)
        blocks, size = [], 0
        while block := source.read(_CHUNK):
            size += len(block)
            if size > limit:
                raise DataError(f"{self.where}: {name!r:.200} grows past {in_units(limit)}: refused")
            blocks.append(block)
        self.bytes_left -= size
        return b"".join(blocks)

    def opened(self, name: str, data: bytes) -> Member:
        """The member, without the layer of compression that its name tells of."""
        suffix = _layer_of(name)
        if not suffix:
            return Member(name, data)
        try:
            with LAYERS[suffix](io.BytesIO(data)) as source:
                return Member(name.removesuffix(suffix), self.read(source, name))
        except (OSError, *DAMAGE) as error:
            raise DataError(f"{self.where}: {name!r:.200} is damaged ({error})") from error


def _gzip(source: IO[bytes]) -> IO[bytes]:
    import gzip

    return gzip.open(source)  # type: ignore[return-value]


def _zstandard(source: IO[bytes]) -> IO[bytes]:
    if (library := zstandard()) is None:
        raise DataError("reading Zstandard (.zst) needs Python 3.14 or the package backports.zstd")
    opened: IO[bytes] = library(source)
    return opened


def zstandard() -> Callable[[IO[bytes]], IO[bytes]] | None:
    """A function that opens a Zstandard stream: Python's own from 3.14 on, else a package that is installed."""
    for module in ("compression.zstd", "backports.zstd"):
        try:
            found: Callable[[IO[bytes]], IO[bytes]] = importlib.import_module(module).ZstdFile
            return found
        except ImportError:
            continue
    try:
        import pyarrow
    except ImportError:
        return None
    return lambda source: pyarrow.CompressedInputStream(source, "zstd")


LAYERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": _gzip,
    ".dz": _gzip,
    ".xz": lzma.LZMAFile,
    ".bz2": bz2.BZ2File,
    ".zst": _zstandard,
}


def _layer_of(name: str) -> str:
    return next((suffix for suffix in LAYERS if name.endswith(suffix)), "")


@dataclass(frozen=True)
class Wanted:
    """Which names to read."""

    members: Sequence[str]
    exclude: Sequence[str] = ()

    def __contains__(self, name: str) -> bool:
        return any(_pattern(p).fullmatch(name) for p in self.members) and not any(
            _pattern(p).fullmatch(name) for p in self.exclude
        )

    def takes_hidden(self, name: str) -> bool:
        """Whether a pattern that itself speaks of hidden files (`.notes/**`) asks for it."""
        hidden = [p for p in self.members if p.startswith(".") or "/." in p]
        return any(_pattern(p).fullmatch(name) for p in hidden)


@lru_cache(maxsize=1024)
def _pattern(glob: str) -> "re.Pattern[str]":
    """`**/` is any folders, also none; `**` anything; `*` and `?` stay within one part; `[abc]` as in a shell."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]/]+\])", glob)
    spelled = (parts.get(p) or (p.replace("[!", "[^") if p[:1] == "[" else re.escape(p)) for p in pieces)
    return re.compile("".join(spelled), re.DOTALL)
