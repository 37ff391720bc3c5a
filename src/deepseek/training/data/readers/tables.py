"""Records: JSON values, JSON lines, Parquet. `field` says where the text is."""

import io
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from deepseek.errors import DataError
from deepseek.training.data.members import Member
from deepseek.training.data.readers.plain import decoded

if TYPE_CHECKING:
    from deepseek.training.data.recipe import SourceConfig

_SPACE = " \t\r\n"


def json_lines(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """One object a line."""
    for member in members:
        for number, line in enumerate(decoded(member, source.encoding).split("\n"), 1):
            if line.strip():
                where = f"{member.name}:{number}"
                yield where, _text_of(_parsed(line, where), source.field, where)


def json_values(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """Arrays of objects or texts, objects by name, one object, or several such values one after another in a file."""
    for member in members:
        count = 0
        for value in _values(decoded(member, source.encoding), member.name):
            for record in _records(value):
                where = f"{member.name}[{count}]"
                yield where, _text_of(record, source.field, where)
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
        raise DataError(f"{where}: is not JSON ({error})") from error


def _text_of(record: Any, field: str, where: str) -> str:
    """The fields of `a+b`, each a text or a list of texts (its lines), one below the other; a text is itself."""
    if isinstance(record, str):
        return record
    if not isinstance(record, dict):
        raise DataError(f"{where}: is {type(record).__name__}, neither a text nor an object with {field!r}")
    parts = []
    for name in field.split("+"):
        value = record.get(name)
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            value = "\n".join(value)
        if not isinstance(value, str):
            raise DataError(f"{where}: has no text in {name!r}; it has {', '.join(sorted(record))[:200]}; set field")
        parts.append(value)
    return "\n".join(part for part in parts if part)


def parquet(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """The column `field` of Parquet files."""
    try:
        import pyarrow.parquet as library
    except ImportError as error:
        raise DataError("reading Parquet needs pyarrow: pip install 'deepseek-framework[parquet]'") from error
    for member in members:
        try:
            file = library.ParquetFile(io.BytesIO(member.data))
            row = 0
            for batch in file.iter_batches(columns=[source.field]):
                for value in batch.column(0).to_pylist():
                    if value is not None:
                        yield f"{member.name}[{row}]", _text_of({source.field: value}, source.field, member.name)
                    row += 1
        except DataError:
            raise
        except Exception as error:  # a foreign decoder: its errors have no other common base
            raise DataError(f"{member.name}: cannot be read as Parquet with a column {source.field!r} ({error})") from (
                error
            )
