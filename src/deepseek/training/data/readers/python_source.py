"""Python source: as code, and as the prose that is in it. Nothing is ever run or imported."""

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from inspect import cleandoc
from typing import TYPE_CHECKING

from deepseek.errors import DataError
from deepseek.training.data.members import Member

if TYPE_CHECKING:
    from deepseek.training.data.recipe import SourceConfig

_LICENCE = re.compile(r"copyright|licen[sc]e|all rights reserved", re.IGNORECASE)
_PROSE_CHARACTERS = 400  # a longer string that has sentences is documentation, wherever it stands


def _source_of(member: Member) -> str:
    """Decoded as Python itself would, by its coding line."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(member.data).readline)
        return member.data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise DataError(f"{member.name}: is not Python source ({error}); exclude it in the recipe") from error


def code(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """A file is a document, without the comment at its head if that is a licence."""
    for member in members:
        yield member.name, _without_licence(_source_of(member))


def _without_licence(text: str) -> str:
    lines = text.splitlines(keepends=True)
    head = 0
    while head < len(lines) and (lines[head].startswith("#") or not lines[head].strip()):
        head += 1
    return "".join(lines[head:]) if _LICENCE.search("".join(lines[:head])) else text


def docstrings(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """The docstrings of a file, and its other long strings of prose, in order, as one document."""
    for member in members:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of other people's escapes in strings
                tree = ast.parse(_source_of(member))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise DataError(f"{member.name}: is not Python source ({error}); exclude it in the recipe") from error
        yield member.name, "\n\n".join(_prose(tree))


def _prose(tree: ast.Module) -> Iterator[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    seen = set()
    for node in ast.walk(tree):  # a body comes before what is in it
        if isinstance(node, documented) and (doc := ast.get_docstring(node)):
            seen.add(id(node.body[0].value))  # type: ignore[attr-defined]
            yield f"{getattr(node, 'name', '')}\n{doc}".lstrip()
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in seen:
            text = cleandoc(node.value) if len(node.value) >= _PROSE_CHARACTERS else ""
            if len(text) >= _PROSE_CHARACTERS and ". " in text:
                yield text
