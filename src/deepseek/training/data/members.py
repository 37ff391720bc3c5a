"""Named pieces of a source: files of a folder or members of an archive, read under stated limits.

Nothing is ever unpacked to the disk, so a hostile name has nowhere to lead; it is refused all the same. A member that
is itself compressed (`.gz`, `.dz`, `.xz`, `.bz2`) is opened, and may not grow past the limit either.
"""

import bz2
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from deepseek.errors import DataError
from deepseek.hub.cache import in_units

MAX_MEMBER_BYTES = 1 << 30
MAX_TOTAL_BYTES = 8 << 30
MAX_MEMBERS = 1_000_000
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """One file: its name with `/` between the parts, and what is in it."""

    name: str
    data: bytes


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
        for suffix, opener in _LAYERS.items():
            if name.endswith(suffix):
                try:
                    with opener(io.BytesIO(data)) as source:
                        return Member(name.removesuffix(suffix), self.read(source, name))
                except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
                    raise DataError(f"{self.where}: {name!r:.200} is damaged ({error})") from error
        return Member(name, data)


def _gzip(source: IO[bytes]) -> IO[bytes]:
    import gzip

    return gzip.open(source)  # type: ignore[return-value]


_LAYERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": _gzip,
    ".dz": _gzip,
    ".xz": lzma.LZMAFile,
    ".bz2": bz2.BZ2File,
}


@dataclass(frozen=True)
class Wanted:
    """Which names to read."""

    members: Sequence[str]
    exclude: Sequence[str] = ()

    def __contains__(self, name: str) -> bool:
        return any(_pattern(p).fullmatch(name) for p in self.members) and not any(
            _pattern(p).fullmatch(name) for p in self.exclude
        )


@lru_cache(maxsize=1024)
def _pattern(glob: str) -> "re.Pattern[str]":
    """`**/` is any folders, also none; `**` anything; `*` and `?` stay within one part; `[abc]` as in a shell."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]/]+\])", glob)
    spelled = (parts.get(p) or (p.replace("[!", "[^") if p[:1] == "[" else re.escape(p)) for p in pieces)
    return re.compile("".join(spelled), re.DOTALL)


def files_below(path: Path, wanted: Wanted) -> Iterator[Member]:
    """A file, or the files of a folder in the order of their names. Links are followed to files within it only."""
    budget = Budget(str(path))
    if path.is_file():
        with path.open("rb") as source:
            yield budget.opened(path.name, budget.read(source, path.name))
        return
    if not path.is_dir():
        raise DataError(f"{path}: there is no such file or folder; check path in the recipe")
    home = path.resolve()
    for name in names_below(path, wanted):
        file = path / name
        if not file.is_file() or not file.resolve().is_relative_to(home):
            continue
        budget.members_left -= 1
        with file.open("rb") as source:
            yield budget.opened(name, budget.read(source, name))


def names_below(folder: Path, wanted: Wanted) -> list[str]:
    """Wanted names in alphabetical order. With `os.walk`: a Path for each of a hundred thousand files takes seconds."""
    found = []
    for where, _, files in os.walk(folder):
        inner = Path(where).relative_to(folder).as_posix()
        found += [name for file in files if (name := file if inner == "." else f"{inner}/{file}") in wanted]
    return sorted(found)
