"""Dictionaries of the dict protocol: an index of headwords and one file of definitions."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from deepseek.errors import DataError
from deepseek.training.data.members import Member
from deepseek.training.data.readers.plain import decoded

if TYPE_CHECKING:
    from deepseek.training.data.recipe import SourceConfig

_PAGE_CHARACTERS = 3_000
_DIGITS = {c: n for n, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}


def dictd(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """Pages of about 3,000 characters: definitions in the order of the file, those about the dictionary left out."""
    files = {member.name.rpartition(".")[2]: member for member in members}
    if files.keys() != {"index", "dict"}:
        raise DataError(f"source {source.name}: members must name one .index and one .dict file (.dict.dz is opened)")
    text = files["dict"].data
    page, size, number = list[str](), 0, 0
    for start, length in _places(files["index"], source.encoding):
        if start + length > len(text):
            raise DataError(f"{files['index'].name}: leads past the end of {files['dict'].name}")
        entry = text[start : start + length].decode(source.encoding, "replace").strip("\n")
        page.append(entry)
        size += len(entry)
        if size >= _PAGE_CHARACTERS:
            yield f"{files['dict'].name}:{number}", "\n\n".join(page)
            page, size, number = [], 0, number + 1
    if page:
        yield f"{files['dict'].name}:{number}", "\n\n".join(page)


def _places(index: Member, encoding: str) -> list[tuple[int, int]]:
    """Beginning and length of each definition once, however many headwords lead to it."""
    places = set()
    for number, line in enumerate(decoded(index, encoding).split("\n"), 1):
        fields = line.split("\t")
        if not line or fields[0].startswith(("00-database", "00database")):
            continue
        try:
            places.add((_number(fields[1]), _number(fields[2])))
        except (IndexError, KeyError) as error:
            raise DataError(f"{index.name}:{number}: is not a line of a dictionary index") from error
    return sorted(places)


def _number(text: str) -> int:
    value = 0
    for digit in text:
        value = value * 64 + _DIGITS[digit]
    return value
