"""Records: JSON values, JSON lines, CSV, Parquet. `field` says where the text is (see `rows`)."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from deepseek.errors import DataError
from deepseek.training.data.members import Member
from deepseek.training.data.readers.plain import MAX_LINE_CHARACTERS, decoded, lines
from deepseek.training.data.readers.rows import field_among, text_of

if TYPE_CHECKING:
    from deepseek.training.data.recipe import SourceConfig

_SPACE = " \t\r\n"
_ROWS_AT_ONCE = 1024

Rows = Iterator[tuple[str, str | None]]


def json_lines(members: Iterable[Member], source: "SourceConfig") -> Rows:
    """One object a line."""
    for member in members:
        for number, line in enumerate(lines(member, source.encoding), 1):
            if line.strip():
                where = f"{member.where}:{number}"
                yield where, text_of(_parsed(line, where), source.field, where)


def json_values(members: Iterable[Member], source: "SourceConfig") -> Rows:
    """Arrays of objects or texts, objects by name, one object, or several such values one after another in a file."""
    for member in members:
        count = 0
        for value in _values(decoded(member, source.encoding), member.where):
            for record in _records(value):
                where = f"{member.where}[{count}]"
                yield where, text_of(record, source.field, where)
                count += 1


def _records(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    by_name = isinstance(value, dict) and bool(value) and all(isinstance(item, dict) for item in value.values())
    return list(value.values()) if by_name else [value]


def _values(text: str, where: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    place = 0
    while True:
        while place < len(text) and text[place] in _SPACE:
            place += 1
        if place == len(text):
            return
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: is not JSON ({error})") from error
        yield value


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        advice = "" if line.strip() not in ("[", "{") else '; where one object spans several lines, use format = "json"'
        raise DataError(f"{where}: is not JSON ({error}): correct the line or delete it{advice}") from error


def comma_separated(members: Iterable[Member], source: "SourceConfig") -> Rows:
    return _separated(members, source, ",")


def tab_separated(members: Iterable[Member], source: "SourceConfig") -> Rows:
    return _separated(members, source, "\t")


def _separated(members: Iterable[Member], source: "SourceConfig", delimiter: str) -> Rows:
    """A table whose first row names the columns; a single column is the text whatever its name."""
    csv.field_size_limit(MAX_LINE_CHARACTERS)
    for member in members:
        ended = (f"{line}\n" for line in lines(member, source.encoding))
        rows = csv.DictReader(ended, delimiter=delimiter, strict=True)
        try:
            columns = [str(name) for name in rows.fieldnames or ()]
            field = source.field or (columns[0] if len(columns) == 1 else None)
            for row in rows:
                where = f"{member.where}:{rows.line_num}"
                if None in row or None in row.values():
                    raise DataError(f"{where}: has not the {len(columns)} columns that the first row names")
                yield where, text_of(row, field, where)
        except csv.Error as error:
            raise DataError(f"{member.where}:{rows.line_num}: is not a table ({error})") from error


def parquet(members: Iterable[Member], source: "SourceConfig") -> Rows:
    """The column `field` of Parquet files."""
    try:
        import pyarrow.parquet as library
    except ImportError as error:
        raise DataError("reading Parquet needs pyarrow: pip install pyarrow") from error
    for member in members:
        try:
            content = io.BytesIO(member.content) if isinstance(member.content, bytes) else member.content
            with library.ParquetFile(content) as file:
                columns = file.schema_arrow.names
                field = source.field or field_among(columns, member.where)
                if missing := [name for name in field.split("+") if name not in columns]:
                    raise DataError(f"{member.where}: has no column {missing[0]!r}; it has {', '.join(columns)[:200]}")
                row = 0
                for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=field.split("+")):
                    for record in batch.to_pylist():
                        where = f"{member.where}[{row}]"
                        yield where, text_of(record, field, where)
                        row += 1
        except DataError:
            raise
        except Exception as error:  # a foreign decoder: its errors have no other common base
            raise DataError(
                f"{member.where}: cannot be read as Parquet with a column {source.field or 'text'!r} ({error})"
            ) from error
