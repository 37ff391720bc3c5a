"""Texts of the SWORD project: blocks of zlib with an index of blocks and one of verses (its zText and zCom)."""

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from html import unescape
from typing import TYPE_CHECKING

from deepseek.errors import DataError
from deepseek.training.data.members import Member

if TYPE_CHECKING:
    from deepseek.training.data.recipe import SourceConfig

_BLOCK = struct.Struct("<III")  # offset, bytes, bytes when inflated
_VERSES = (struct.Struct("<IIH"), struct.Struct("<III"))  # block, start, bytes: the second form is zText4's and zCom4's
_MAX_BLOCK_BYTES = 64 << 20
_UNIT = "bcv"  # what a block holds (book, chapter, verse) is the first letter of the files' suffixes
_NOTES = re.compile(r"<(note|rdg)\b[^>]*?(?<!/)>.*?</\1>|<milestone\b[^>]*>", re.DOTALL)
_BREAKS = re.compile(r"</?(p|div|lg|l|lb|title|head|br|list|item|table|row)\b[^>]*>")
_TAGS = re.compile(r"<[^>]*>")


def commentary(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """A block (a book or a chapter) is a document of its verses or notes, one a line, without markup."""
    files = {member.name: member for member in members}
    stems = sorted({name[:-2] for name in files if name[-4:-2] in {f".{unit}" for unit in _UNIT}})
    if not stems:
        raise DataError(f"source {source.name}: members name no .bzz, .czz or .vzz files of a SWORD module")
    for stem in stems:
        if lacking := [end for end in ("zz", "zs", "zv") if f"{stem}{end}" not in files]:
            raise DataError(f"source {source.name}: members name no {stem}{lacking[0]}, which belongs to the module")
        yield from ((f"{stem}:{number}", text) for number, text in enumerate(_blocks(files, stem, source.encoding)))


def _blocks(files: dict[str, Member], stem: str, encoding: str) -> Iterator[str]:
    data, index, verses = (files[f"{stem}{end}"].data for end in ("zz", "zs", "zv"))
    if len(index) % _BLOCK.size:
        raise DataError(f"{stem}zs: is cut short")
    blocks = [_inflated(data, place, stem) for place in _BLOCK.iter_unpack(index)]
    ranges: list[dict[int, int]] = [{} for _ in blocks]  # a note on several verses is listed with each of them
    for number, start, size in _entries(verses, blocks, stem):
        if size:
            ranges[number][start] = size
    for block, found in zip(blocks, ranges, strict=True):
        lines = [
            _without_markup(block[start : start + size].decode(encoding, "replace")) for start, size in found.items()
        ]
        yield "\n".join(line for line in lines if line)


def _inflated(data: bytes, place: tuple[int, int, int], stem: str) -> bytes:
    offset, size, announced = place
    if announced > _MAX_BLOCK_BYTES:
        raise DataError(f"{stem}zs: announces a block of {announced:,} bytes: refused")
    try:
        block = zlib.decompressobj().decompress(data[offset : offset + size], announced + 1)
    except zlib.error as error:
        raise DataError(f"{stem}zz: is damaged ({error})") from error
    if len(block) != announced:
        raise DataError(f"{stem}zz: holds a block of another size than announced")
    return block


def _entries(verses: bytes, blocks: list[bytes], stem: str) -> list[tuple[int, int, int]]:
    """The index of verses, in whichever of the two forms its entries fit the blocks."""
    for form in _VERSES:
        if len(verses) % form.size == 0:
            entries = list(form.iter_unpack(verses))
            if all(not size or (b < len(blocks) and start + size <= len(blocks[b])) for b, start, size in entries):
                return entries
    raise DataError(f"{stem}zv: its verses lie outside of the blocks")


def _without_markup(text: str) -> str:
    text = _BREAKS.sub("\n", _NOTES.sub("", text))
    text = unescape(_TAGS.sub("", text))
    return re.sub(r"\s*\n\s*", "\n", re.sub(r"[ \t]+", " ", text)).strip()
