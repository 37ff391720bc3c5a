"""The half of docs/compatibility.md that lists request fields. Run it after changing them."""

import re
from collections import defaultdict
from pathlib import Path

from deepseek.server.protocol.field_table import IMPLEMENTED, request_fields

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "compatibility.md"
BEGIN, END = "<!-- request-fields -->\n", "<!-- /request-fields -->"


def request_field_tables() -> str:
    """A section a route: its fields in one line, then a table of those that are not the server's own."""
    return "\n".join(_section(route, fields) for route, fields in request_fields().items())


def _section(route: str, fields: dict[str, str]) -> str:
    own = [name for name, what in fields.items() if what == IMPLEMENTED]
    rest: dict[str, list[str]] = defaultdict(list)
    for name, what in fields.items():
        if what != IMPLEMENTED:
            rest[what].append(name)
    lines = [f"### `{route}`", "", f"Implemented: {_names(own)}.", ""]
    if rest:
        rows = sorted(rest.items(), key=lambda row: (_ORDER.index(row[0].split()[0].rstrip(":")), row[1]))
        lines += ["| field | what becomes of it |", "|---|---|"]
        lines += [f"| {_names(names)} | {what.replace('|', chr(92) + '|')} |" for what, names in rows]
        lines.append("")
    return "\n".join(lines)


_ORDER = ("alias", "read", "refused", "ignored")


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def with_request_fields(text: str) -> str:
    marked = re.compile(f"({re.escape(BEGIN)}).*?({re.escape(END)})", re.DOTALL)
    return marked.sub(lambda found: f"{found[1]}\n{request_field_tables()}\n{found[2]}", text)


if __name__ == "__main__":
    DOCUMENT.write_text(with_request_fields(DOCUMENT.read_text()))
