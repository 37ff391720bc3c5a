"""`deepseek models`: the catalog as a table."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from deepseek.cli.console import StandardConsole, out, print_json

if TYPE_CHECKING:
    from deepseek.hub.catalog import Entry

WIDE = 100  # columns that the whole table needs
_STYLES = {"yes": "green", "planned": "yellow", "no": "dim"}


def models(
    family: Annotated[str, typer.Option(metavar="NAME", help="Only this architecture, such as deepseek_v3.")] = "",
    modality: Annotated[str, typer.Option(metavar="KIND", help="Only text, vision or audio.")] = "",
    runs: Annotated[str, typer.Option(metavar="ANSWER", help="Only yes, planned or no: does it run here?")] = "",
    search: Annotated[str, typer.Option(metavar="TEXT", help="Only names and sources that contain TEXT.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print all fields as JSON: for programs.")] = False,
) -> None:
    """List known models: size, memory, licence, and whether this version runs them.

    Any other model of a family that runs works as well, by its path or its name on the hub.

    Examples:

        deepseek models

        deepseek models --runs yes --search coder

        deepseek models --family deepseek_v3

        deepseek models --modality vision --json
    """
    from deepseek.hub.catalog import ANSWERS, MODALITIES, entries

    _require("--family", family, sorted({entry.family for entry in entries()}))
    _require("--modality", modality, MODALITIES)
    _require("--runs", runs, ANSWERS)
    chosen = [
        entry
        for entry in entries()
        if family in ("", entry.family)
        and modality in ("", entry.modality)
        and runs in ("", entry.runs)
        and _mentions(entry, search)
    ]
    if as_json:
        print_json([_facts(entry) for entry in chosen])
    elif not chosen:
        out.print("No known model matches; `deepseek models` without options lists all.")
    else:
        _print_table(chosen)


def _require(option: str, value: str, choices: Iterable[str]) -> None:
    if value and value not in choices:
        raise typer.BadParameter(f"{value!r}; choose one of {', '.join(choices)}", param_hint=option)


def _mentions(entry: "Entry", text: str) -> bool:
    return any(text.lower() in name.lower() for name in (entry.name, *entry.aliases, *entry.sources))


def _facts(entry: "Entry") -> dict[str, Any]:
    from deepseek.families.sizes import BITS_PER_WEIGHT

    return {
        "name": entry.name,
        "aliases": entry.aliases,
        "family": entry.family,
        "modality": entry.modality,
        "parameters": entry.total,
        "active_parameters": entry.active or entry.total,
        "rounded": entry.rounded,
        "memory_bytes": {precision: entry.memory(precision) for precision in BITS_PER_WEIGHT},
        "licence": entry.licence,
        "context": entry.context,
        "runs": entry.runs,
        "sources": entry.sources,
    }


def _print_table(chosen: list["Entry"]) -> None:
    # into a file or a pipe the whole table goes, whatever the terminal's width
    board = out if out.is_terminal else StandardConsole(width=max(out.width, WIDE), highlight=False)
    wide = board.width >= WIDE
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for title, right in _columns(wide):
        table.add_column(title, justify="right" if right else "left", no_wrap=True)
    for entry in chosen:
        table.add_row(*_row(entry, wide))
    board.print(table)
    board.print(_footnote(len(chosen), wide), style="dim")


def _columns(wide: bool) -> list[tuple[str, bool]]:
    """Title and whether numbers stand in it; a narrow terminal does without three."""
    extra = [("int8", True)] if wide else []
    return [
        ("name", False), ("reads", False), ("family", False), ("total", True), ("active", True),
        ("bf16", True), *extra, ("int4", True), *([("licence", False)] if wide else []), ("runs", False),
    ]  # fmt: skip


def _row(entry: "Entry", wide: bool) -> list[str]:
    from deepseek.families.sizes import BITS_PER_WEIGHT

    memory = {precision: _bytes(entry.memory(precision)) for precision in BITS_PER_WEIGHT}
    active = entry.active if entry.active else entry.total
    row = [entry.name, entry.modality, entry.family, _count(entry.total), _count(active), memory["bf16"]]
    row += [memory["int8"]] if wide else []
    row += [memory["int4"]]
    row += [entry.licence] if wide else []
    return [*row, f"[{_STYLES[entry.runs]}]{entry.runs}[/]"]


def _count(value: int | None) -> str:
    """Parameters in three digits: 135M, 6.91B, 671B, 1.6T."""
    return "?" if value is None else _scaled(value, ((1e12, "T"), (1e9, "B"), (1e6, "M")))


def _bytes(value: int | None) -> str:
    return "?" if value is None else _scaled(value, ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")))


def _scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    """Three significant digits in the largest unit that leaves at least one before the point."""
    size, unit = next((pair for pair in units if value >= pair[0] * 0.9995), units[-1])
    scaled = value / size
    digits = 0 if scaled >= 99.95 else 1 if scaled >= 9.995 else 2
    text = f"{scaled:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + unit


def _footnote(count: int, wide: bool) -> str:
    from deepseek.families.sizes import BITS_PER_WEIGHT

    bits = ", ".join(f"{precision} {bits:g}" for precision, bits in BITS_PER_WEIGHT.items())
    hidden = "" if wide else f"\nFrom {WIDE} columns on, int8 and licences are shown too."
    return (
        f"\n{count} models. Memory: the weights alone, at {bits} bits each.\n"
        "Active: parameters that one token is multiplied with. ?: not published."
        f"{hidden}\nFetch one: deepseek pull NAME. Sources, contexts, aliases: --json."
    )
