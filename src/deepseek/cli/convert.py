"""`deepseek convert`: a checkpoint to another format or type."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepseek.cli import options
from deepseek.cli.console import err, memory_text, out, print_json, progress_bars

if TYPE_CHECKING:
    from deepseek.checkpoint.convert import Conversion


class Target(StrEnum):
    """What --to takes."""

    safetensors = "safetensors"
    gguf = "gguf"


def convert(
    source: Annotated[str, typer.Argument(help="A model folder, a .safetensors or .gguf file, or a model's name.")],
    destination: Annotated[Path, typer.Argument(help="A file that ends in .gguf, or a folder for safetensors.")],
    to: Annotated[
        Target | None, typer.Option("--to", help="Format; by default what the destination's ending says.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            metavar="f32|f16|bf16|q8_0|q4_0",
            help="Type of the weights (q8_0, q4_0: GGUF only); by default each keeps its own where the format has it.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is at the destination.")] = False,
    allow_unknown_keys: options.AllowUnknownKeys = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: for programs.")] = False,
) -> None:
    """Convert a checkpoint between safetensors and GGUF, optionally to another type; the tokenizer is included.

    llama.cpp loads the GGUF files, Transformers the folders. What the other format cannot hold is refused or
    reported, never dropped silently. One tensor is in memory at a time.

    Examples:

        deepseek convert deepseek-ai/DeepSeek-V2-Lite-Chat v2-lite-q8.gguf --dtype q8_0

        deepseek convert model.Q4_K_M.gguf model-folder --dtype bf16

        deepseek convert my-trained-model/ my-model.gguf --dtype q4_0 --force
    """
    from deepseek.checkpoint.convert import convert as run
    from deepseek.hub import resolve

    with progress_bars() as report:
        path = resolve(source, report=report).path
        done = run(
            path,
            destination.expanduser(),
            to=to.value if to else None,
            dtype=dtype,
            overwrite=force,
            allow_unknown=allow_unknown_keys,
            report=report,
        )
    if as_json:
        print_json(_facts(done))
    else:
        _print(done)


def _facts(done: "Conversion") -> dict[str, object]:
    return {
        "path": str(done.path),
        "format": done.format,
        "bytes": done.size,
        "elements_by_type": done.types,
        "notes": list(done.notes),
    }


def _print(done: "Conversion") -> None:
    out.print(str(done.path), markup=False, soft_wrap=True)
    total = sum(done.types.values())
    types = ", ".join(
        f"{count / total:.1%} {dtype}" for dtype, count in sorted(done.types.items(), key=lambda t: -t[1])
    )
    out.print(f"{memory_text(done.size)} {done.format}: {types}", style="dim", markup=False)
    for note in done.notes:
        err.print(f"note: {note}", style="yellow", markup=False)
