"""The table of verbs, and the one place where errors become messages and exit codes."""

import gc
import os
import sys

import typer

from deepseek import __version__
from deepseek.cli.batch import batch
from deepseek.cli.bench import bench
from deepseek.cli.carve import carve
from deepseek.cli.chat import chat
from deepseek.cli.console import err
from deepseek.cli.convert import convert
from deepseek.cli.data import data
from deepseek.cli.generate import generate
from deepseek.cli.info import info
from deepseek.cli.long_help import LongHelpCommand
from deepseek.cli.models import models
from deepseek.cli.pack import pack
from deepseek.cli.perplexity import perplexity
from deepseek.cli.pull import pull
from deepseek.cli.serve import serve
from deepseek.cli.train import train
from deepseek.cli.verify import verify
from deepseek.errors import DeepseekError

app = typer.Typer(
    name="deepseek",
    help="Run, inspect and convert mixture-of-experts models on the machine at hand.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


_OBJECTS_A_COLLECTION = 100_000  # vocabularies and imports make many that stay: looking at them took a tenth of a start


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"deepseek {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    pass


app.command()(chat)
app.command()(generate)
app.command(cls=LongHelpCommand)(serve)
app.command()(batch)
app.command()(info)
app.command()(models)
app.command()(pull)
app.command()(convert)
app.command()(data)
app.command()(train)
app.command()(carve)
app.command()(pack)
app.command()(verify)
app.command()(bench)
app.command()(perplexity)


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 a mendable error (said in one message), 2 wrong usage, 130 interrupted."""
    gc.set_threshold(_OBJECTS_A_COLLECTION)
    try:
        app()
    except DeepseekError as error:
        err.print(f"[bold red]error:[/] {_plain(error)}", soft_wrap=not err.is_terminal)
        raise SystemExit(1) from None
    except MemoryError as error:
        err.print(
            f"[bold red]error:[/] not enough memory ({_plain(error) or 'none left'}): raise the limit, choose "
            "a smaller --quantize, or a smaller cache (--kv-cache-bytes, --max-model-len, --max-num-seqs)",
            soft_wrap=not err.is_terminal,
        )
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        err.print("interrupted")
        raise SystemExit(130) from None
    except BrokenPipeError:  # `deepseek models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:
        if error.filename is None:
            raise
        err.print(f"[bold red]error:[/] {_plain(error.filename)}: {error.strerror}", soft_wrap=not err.is_terminal)
        raise SystemExit(1) from None


def _plain(error: object) -> str:
    from rich.markup import escape

    return escape(str(error))
