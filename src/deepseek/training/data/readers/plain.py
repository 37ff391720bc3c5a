"""Plain text: whole files, Project Gutenberg's books, collections of short pieces."""

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from deepseek.errors import DataError
from deepseek.training.data.cleaning import pieces
from deepseek.training.data.members import Member

if TYPE_CHECKING:
    from deepseek.training.data.recipe import SourceConfig

PART_CHARACTERS = 8_000_000  # of a file larger than two such parts, which is read part by part
MAX_LINE_CHARACTERS = 1 << 28
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # byte order marks

_START = re.compile(r"^.*(\*\*\* ?START OF TH|\*END[* ]*THE SMALL PRINT!).*$", re.MULTILINE | re.IGNORECASE)
_END = re.compile(
    r"^\W*(\*\*\* ?END OF TH|End of (the |this )?Project Gutenberg|End of the Project Gutenberg).*$",
    re.MULTILINE | re.IGNORECASE,
)


def decoded(member: Member, encoding: str) -> str:
    """The whole text of a member. Raises DataError when it is in another encoding."""
    return "".join(decoded_blocks(member, encoding))


def decoded_blocks(member: Member, encoding: str) -> Iterator[str]:
    """Piece by piece, without a byte order mark. Raises DataError that names the first byte that is not text."""
    decoder = codecs.getincrementaldecoder(encoding)()
    before, first = 0, True  # bytes that are decoded; no text was given yet
    for block in _with_end(member):
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise _not_text(member, encoding, before - pending + error.start, error.object[error.start]) from None
        except UnicodeError as error:  # utf-16 and utf-32 without a byte order mark
            raise DataError(f"{member.where}: {error}; set encoding to {encoding}-le or {encoding}-be") from None
        before += len(block)
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        yield text


def _with_end(member: Member) -> Iterator[bytes]:
    yield from member.blocks()
    yield b""


def _not_text(member: Member, encoding: str, place: int, byte: int) -> DataError:
    start = next(iter(member.blocks()))[:4]
    marked = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
    wanted = f'encoding = "{marked}"' if marked and marked != encoding else 'encoding (such as "cp1252")'
    return DataError(
        f"{member.where}: is not text in {encoding} (byte {place:,} is 0x{byte:02x}); set {wanted} for its source "
        f"in the data recipe, or leave the file out: {member.hint}"
    )


def lines(member: Member, encoding: str) -> Iterator[str]:
    """Of any length up to MAX_LINE_CHARACTERS, ended by a newline, which is cut off."""
    rest: list[str] = []
    size = 0
    for text in decoded_blocks(member, encoding):
        *whole, last = text.split("\n")
        for line in whole:
            yield "".join((*rest, line))
            rest, size = [], 0
        rest.append(last)
        size += len(last)
        if size > MAX_LINE_CHARACTERS:
            raise DataError(f"{member.where}: has a line of over {MAX_LINE_CHARACTERS:,} characters: {member.hint}")
    yield "".join(rest)


def text(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """A file is a document: prose, Markdown, code. A very large one is several, cut between paragraphs."""
    for member in members:
        held, size = [], 0
        for block in decoded_blocks(member, source.encoding):
            held.append(block)
            size += len(block)
            if size >= 2 * PART_CHARACTERS:
                *parts, rest = pieces("".join(held), PART_CHARACTERS)
                yield from ((member.name, part) for part in parts)
                held, size = [rest], len(rest)
        yield member.name, "".join(held)


def gutenberg(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """A book between the marks that Project Gutenberg puts around it; a file without them is taken whole."""
    for member in members:
        book = decoded(member, source.encoding)
        starts = list(_START.finditer(book))
        book = book[starts[-1].end() :] if starts else book
        end = _END.search(book)
        yield member.name, book[: end.start()] if end else book


def paragraphs(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """Pieces separated by lines of a single `%`, as in the files of `fortune`; one document a file.

    The pieces are joined by blank lines: each alone is too short to be one.
    """
    for member in members:
        pieces = re.split(r"^%$", decoded(member, source.encoding).replace("\r\n", "\n"), flags=re.MULTILINE)
        yield member.name, "\n\n".join(piece.strip("\n") for piece in pieces)
