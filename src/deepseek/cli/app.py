"""The table of verbs, and the one place where errors become messages and exit codes."""

import contextlib
import gc
import signal
import sys
from collections.abc import Iterator
from typing import Any

import typer

from deepseek import __version__
from deepseek.cli import INTERRUPTED, streams
from deepseek.cli.batch import batch
from deepseek.cli.bench import bench
from deepseek.cli.carve import carve
from deepseek.cli.chat import chat
from deepseek.cli.command import PastTyper, VerbCommand, VerbGroup
from deepseek.cli.console import err
from deepseek.cli.convert import convert
from deepseek.cli.data import data
from deepseek.cli.evaluate import evaluate
from deepseek.cli.generate import generate
from deepseek.cli.info import info
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
    cls=VerbGroup,
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


for _verb in (
    chat, generate, serve, batch, info, models, pull, convert, data, train, evaluate, carve, pack, verify, bench,
    perplexity,
):  # fmt: skip
    app.command(cls=VerbCommand)(_verb)


def run(*, interruptible: bool = False) -> int:
    """Carry out the command line; the exit code. interruptible: Ctrl-C is KeyboardInterrupt while a verb runs."""
    gc.set_threshold(_OBJECTS_A_COLLECTION)
    streams.prepare()
    sys.unraisablehook = _unraisable
    try:
        with _interrupts(interruptible):
            code = _invoke()
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # `deepseek models | head`: the reader has enough
        streams.abandon_stdout()
        return 0
    except DeepseekError as error:
        return _failed(str(error))
    except MemoryError as error:
        return _failed(
            f"not enough memory ({error or 'none left'}): raise the limit, choose a smaller --quantize, or a smaller "
            "cache (--kv-cache-bytes, --max-model-len, --max-num-seqs)"
        )
    except OSError as error:
        if (fault := streams.fault_of(error)) is None:
            raise
        streams.abandon_stdout()
        return _failed(fault)


def _invoke() -> int:
    try:
        app()
    except PastTyper as passed:
        raise passed.error from None
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return 0


@contextlib.contextmanager
def _interrupts(wanted: bool) -> Iterator[None]:
    if wanted:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield


def _failed(message: str) -> int:
    say(f"[bold red]error:[/] {_plain(message)}")
    return 1


def say(message: str) -> None:
    """One line on standard error, if there is anybody to read it."""
    with contextlib.suppress(OSError):
        err.print(message, soft_wrap=not err.is_terminal)


def _unraisable(found: Any) -> None:
    """Ctrl-C where Python cannot raise (a callback, a destructor) would be lost behind a traceback: raise it again."""
    if isinstance(found.exc_value, KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    else:
        sys.__unraisablehook__(found)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
