"""Formats: members of a source to documents. One format a function, one family of formats a file.

A reader takes the members in order and yields (name, text), the text None for a row that holds none. A new format is
one function and one line in `FORMATS`. What does not fit its format is a DataError naming the member.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from deepseek.training.data.members import Member
from deepseek.training.data.readers import (
    auto,
    chinese,
    dictionary,
    markup,
    plain,
    python_source,
    r_data,
    roff,
    sword,
    tables,
)

if TYPE_CHECKING:
    from deepseek.training.data.recipe import SourceConfig

Document = tuple[str, str | None]
Reader = Callable[[Iterable[Member], "SourceConfig"], Iterator[Document]]

FORMATS: dict[str, Reader] = {
    "auto": auto.mixed,
    "text": plain.text,
    "gutenberg": plain.gutenberg,
    "paragraphs": plain.paragraphs,
    "html": markup.html,
    "rst": markup.restructured,
    "pod": markup.pod,
    "man": roff.manual,
    "python": python_source.code,
    "docstrings": python_source.docstrings,
    "json": tables.json_values,
    "jsonl": tables.json_lines,
    "csv": tables.comma_separated,
    "tsv": tables.tab_separated,
    "parquet": tables.parquet,
    "poems": chinese.poems,
    "tagged": chinese.tagged,
    "dictd": dictionary.dictd,
    "sword": sword.commentary,
    "rdb": r_data.lazy_load,
}
