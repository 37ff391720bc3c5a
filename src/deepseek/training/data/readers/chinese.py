"""Collections of Chinese texts: the poems of chinese-poetry, and tagged newspapers."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from deepseek.errors import DataError
from deepseek.training.data.members import Member
from deepseek.training.data.readers.plain import decoded

if TYPE_CHECKING:
    from deepseek.training.data.recipe import SourceConfig

_LINES = ("paragraphs", "content", "para")
_HEADS = ("title", "rhythmic", "chapter", "subchapter", "section", "author")
_TAG = re.compile(r"/[A-Za-z]+$")
_ARTICLE = re.compile(r"(\d{8}-\d{2}-\d{3})-\d{3}/m$")


def poems(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """Every object that holds lines, however deep, is a document: title, author, lines.

    Lines are a list of texts under `paragraphs`, `content` or `para`; the same names may hold further objects instead.
    """
    for member in members:
        try:
            value = json.loads(decoded(member, source.encoding))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{member.name}: is not JSON ({error})") from error
        for number, poem in enumerate(_poems(value)):
            yield f"{member.name}[{number}]", poem


def _poems(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _poems(item)
    elif isinstance(value, dict):
        body = next((value[name] for name in _LINES if value.get(name)), None)
        lines = [body] if isinstance(body, str) else body
        if not isinstance(lines, list):
            return
        if all(isinstance(line, str) for line in lines):
            heads = [value[name] for name in _HEADS if isinstance(value.get(name), str) and value[name]]
            yield "\n".join([*heads, *lines])
        else:
            yield from _poems([line for line in lines if not isinstance(line, str)])


def tagged(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """Words with their parts of speech, `迈向/v  充满/v`, as running text (the form of the People's Daily corpus).

    Lines that begin with the same article number, `19980101-01-001-001/m`, are one document of a paragraph a line;
    without numbers a file is one.
    """
    for member in members:
        article, lines = "", list[str]()
        for line in decoded(member, source.encoding).splitlines():
            words = line.split()
            number = _ARTICLE.match(words[0]) if words else None
            if number is not None and number[1] != article:
                if lines:
                    yield f"{member.name}:{article}", "\n".join(lines)
                article, lines = number[1], []
            if text := "".join(_word(word) for word in words[number is not None :]):
                lines.append(text)
        if lines:
            yield f"{member.name}:{article}", "\n".join(lines)


def _word(word: str) -> str:
    """`[中国/ns` opens a name of several words and `银行/n]nt` closes it; their brackets are not text."""
    word = re.sub(r"\](nt|ns|nz|[a-z]{1,3})?$", "", word) if "/" in word else word
    word = word[1:] if word.startswith("[") and len(word) > 2 and not word.startswith("[/") else word
    return _TAG.sub("", word)
