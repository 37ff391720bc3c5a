"""Data of R packages: the lazy-load database (`.rdb`), of which vectors of texts are read and nothing is run."""

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from deepseek.errors import DataError
from deepseek.hub.cache import in_units
from deepseek.training.data.members import Member

if TYPE_CHECKING:
    from deepseek.training.data.recipe import SourceConfig

_MAX_RECORD_BYTES = 256 << 20
_TEXTS, _TEXT = 16, 9  # kinds of R's serialised values: a vector of texts, a text
_HAS_NATIVE_ENCODING = 3  # the format's version from which on the header names an encoding


def lazy_load(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """A vector of texts is a document of its lines; values of other kinds (environments, tables) are passed over."""
    for member in members:
        for number, record in enumerate(_records(member)):
            lines = _texts(record, member.name)
            if lines:
                yield f"{member.name}[{number}]", "\n".join(lines)


def _records(member: Member) -> Iterator[bytes]:
    """Each is its length in four bytes and a zlib stream; they follow one another."""
    at = 0
    while at + 4 <= len(member.data):
        size = int.from_bytes(member.data[at : at + 4], "big")
        if size > _MAX_RECORD_BYTES:
            raise DataError(f"{member.name}: announces a value of {in_units(size)}: refused")
        inflater = zlib.decompressobj()
        try:
            record = inflater.decompress(member.data[at + 4 :], size + 1)
            inflater.flush()
        except zlib.error as error:
            raise DataError(f"{member.name}: is damaged or compressed otherwise than with zlib ({error})") from error
        if len(record) != size:
            raise DataError(f"{member.name}: holds a value of another size than announced")
        yield record
        at = len(member.data) - len(inflater.unused_data)


def _texts(record: bytes, where: str) -> list[str]:
    try:
        return list(_unpacked(record))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: holds a value that is not an R serialization ({error})") from error


def _unpacked(record: bytes) -> Iterator[str]:
    if record[:2] != b"X\n":
        return
    version, at = _number(record, 2), 14
    if version >= _HAS_NATIVE_ENCODING:
        at += 4 + _number(record, at)
    if _number(record, at) & 0xFF != _TEXTS:
        return
    count, at = _number(record, at + 4), at + 8
    for _ in range(count):
        if _number(record, at) & 0xFF != _TEXT:
            return
        size, at = _number(record, at + 4), at + 8
        if size > len(record) - at:
            raise IndexError("a text is cut short")
        yield record[at : at + max(size, 0)].decode("utf-8", "replace")  # -1 is a missing value
        at += max(size, 0)


def _number(record: bytes, at: int) -> int:
    value: int = struct.unpack_from(">i", record, at)[0]
    return value
