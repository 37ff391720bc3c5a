"""Rows of tables to texts: which field holds the text, and what is done with a row that has none.

A row whose text is null is no document: it is passed over and counted (`None`), as an empty one is. A row without the
field, or with something else in it, is an error that names what the row has.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from deepseek.errors import DataError

TEXT_FIELDS = ("text", "content", "raw_content", "messages", "conversations")  # the names that published data uses
_INSTRUCTION_FIELDS = (
    *("instruction", "input", "prompt", "question"),
    *("output", "response", "answer", "completion"),
)
_ROLE, _SAID = ("role", "from"), ("content", "value")


def text_of(record: Any, field: str | None, where: str) -> str | None:
    """The fields of `a+b`, each a text, a list of texts (its lines) or a chat, one below the other; a text is itself.

    field: None takes the first of TEXT_FIELDS that the row has. Raises DataError.
    """
    if record is None or isinstance(record, str):
        return record
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: is {type(record).__name__}, neither a text nor an object with fields")
    parts = [_part(record, name, where) for name in (field or field_among(record, where)).split("+")]
    given = [part for part in parts if part is not None]
    return "\n".join(part for part in given if part) if given else None


def field_among(names: Iterable[str], where: str) -> str:
    """The field that holds the text by its name. Raises DataError when none is known."""
    have = list(names)
    if found := next((name for name in TEXT_FIELDS if name in have), None):
        return found
    raise DataError(f"{where}: has no text in {TEXT_FIELDS[0]!r}; it has {_listed(have)}; {_advice(have)}")


def _part(record: Mapping[str, Any], name: str, where: str) -> str | None:
    if name not in record:
        raise DataError(f"{where}: has no text in {name!r}; it has {_listed(record)}; {_advice(record)}")
    value = record[name]
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return "\n\n".join(_turn(turn, where) for turn in value)
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{where}: {name!r} holds {type(value).__name__}, no text; it has {_listed(record)}; set field")
    return value


def _turn(turn: Mapping[str, Any], where: str) -> str:
    """A message of a chat as `role: content`; parts of other kinds than text (images) cannot be kept."""
    role, said = (next((turn[name] for name in names if name in turn), None) for names in (_ROLE, _SAID))
    if isinstance(said, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in said):
        said = "".join(str(part.get("text", "")) for part in said)
    if not isinstance(role, str) or not isinstance(said, str | None):
        raise DataError(f"{where}: a message has {_listed(turn)}, not a role and a text")
    return f"{role}: {said or ''}"


def _advice(names: Iterable[str]) -> str:
    """Instruction data is in several fields at once."""
    several = [name for name in _INSTRUCTION_FIELDS if name in set(names)]
    return f'set field, for example field = "{"+".join(several)}"' if several else "set field to one of these"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(map(str, names)))[:200] or "nothing"
