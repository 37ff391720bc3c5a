"""`deepseek data`: text from folders and packages becomes the folder that training reads."""

from pathlib import Path
from typing import Annotated, Any

import typer

from deepseek.cli import options
from deepseek.cli.console import out, print_json, progress_bars
from deepseek.hub.cache import in_units


def data(
    recipe: Annotated[Path, typer.Argument(help="A TOML file that names the sources; see recipes/data.")],
    output: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; a later run continues it.")],
    downloads: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps the packages, to share among outputs; by default OUT/downloads."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Leave out this source; may be given several times.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only packages that are there already.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Prepare text for training: fetch, clean, drop duplicates, hold some out, train a tokenizer, write tokens.

    An interrupted run continues where it stopped; a second run does nothing.

    Examples:

        deepseek data recipes/data/smoke.toml --out data/smoke

        deepseek data recipes/data/open-mixture.toml --out data/open --json
    """
    from deepseek.training.data.prepare import prepare
    from deepseek.training.data.recipe import DataRecipe

    chosen = DataRecipe.from_toml(recipe.expanduser()).without(without or [])
    with progress_bars() as report:
        told = prepare(
            chosen,
            output.expanduser(),
            downloads=downloads.expanduser() if downloads else None,
            report=report,
            offline=offline,
        )
    if as_json:
        print_json(told)
    else:
        _print(told)


def _print(told: dict[str, Any]) -> None:
    from rich.table import Table

    from deepseek.training.data.prepare import notes

    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in ("source", "language", "text", "documents", "same", "alike", "tokens", "held out", "bytes per token"):
        table.add_column(name, justify="left" if name in ("source", "language") else "right")
    for entry in told["sources"]:
        table.add_row(
            entry["name"],
            entry["language"],
            in_units(entry["bytes"]),
            f"{entry['documents']:,}",
            f"{entry['exact']:,}",
            f"{entry['near']:,}",
            f"{entry['train_tokens']:,}",
            f"{entry['held_out_tokens']:,}",
            f"{1 / entry['tokens_per_byte']:.2f}" if entry["tokens_per_byte"] else "",
        )
    out.print(table)
    total = told["total"]
    out.print(
        f"{in_units(total['bytes'])} of text, {total['train_tokens']:,} tokens to train on and "
        f"{total['held_out_tokens']:,} held out, vocabulary {told['vocab_size']:,}, in {told['seconds']:.0f} s",
        style="dim",
        markup=False,
    )
    for note in notes(told):
        out.print(note, style="dim", markup=False, soft_wrap=True)
