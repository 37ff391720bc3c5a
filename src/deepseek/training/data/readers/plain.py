"""Plain text: whole files, Project Gutenberg's books, collections of short pieces."""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from deepseek.errors import DataError
from deepseek.training.data.members import Member

if TYPE_CHECKING:
    from deepseek.training.data.recipe import SourceConfig

_START = re.compile(r"^.*(\*\*\* ?START OF TH|\*END[* ]*THE SMALL PRINT!).*$", re.MULTILINE | re.IGNORECASE)
_END = re.compile(
    r"^\W*(\*\*\* ?END OF TH|End of (the |this )?Project Gutenberg|End of the Project Gutenberg).*$",
    re.MULTILINE | re.IGNORECASE,
)


def decoded(member: Member, encoding: str) -> str:
    """The text of a member. Raises DataError when it is in another encoding."""
    try:
        return member.data.decode(encoding).removeprefix("\ufeff")
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(f"{member.name}: is not text in {encoding} ({error}); set encoding in the recipe") from error


def text(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """A file is a document: prose, Markdown, code."""
    for member in members:
        yield member.name, decoded(member, source.encoding)


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
