"""What every verb prints with: results on stdout, everything else (progress, errors) on stderr."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from deepseek.cli.streams import speaks_unicode
from deepseek.progress import Report


class StandardConsole(Console):
    def on_broken_pipe(self) -> None:
        """`cli.app` says what it means that the reader has left; Rich would exit with 1."""
        raise


out = StandardConsole(highlight=False)
err = StandardConsole(stderr=True, highlight=False)

SHOW_AFTER_SECONDS = 1.0  # work that ends sooner needs no bar
LOG_EVERY_SECONDS = 15.0


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """One JSON document on stdout, unstyled: for programs. In ASCII where the output takes no other characters."""
    print(json.dumps(value, ensure_ascii=not speaks_unicode(), indent=indent))


def print_pieces(pieces: Iterable[str]) -> None:
    """An answer as it comes, then the end of its line, also where Ctrl-C stops it."""
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    finally:
        print(flush=True)


def counted(number: int, noun: str) -> str:
    """`1 token`, `2 tokens`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@contextmanager
def progress_bars() -> Iterator[Report]:
    """Yield a `Report` that shows each label on stderr once it takes over a second.

    In a terminal as a bar that goes away again, elsewhere (a log, a pipe) as a line every LOG_EVERY_SECONDS.
    """
    if not err.is_terminal:
        yield _logged
        return
    bars = _Bars()
    try:
        yield bars.report
    finally:
        bars.stop()


class _Bars:
    def __init__(self) -> None:
        self._board: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._begun: dict[str, float] = {}

    def report(self, label: str, done: int, total: int | None, unit: str = "bytes") -> None:
        begun = self._begun.setdefault(label, time.monotonic())
        if label not in self._tasks:
            if done == total or time.monotonic() - begun < SHOW_AFTER_SECONDS:
                return
            if self._board is None:
                self._board = Progress(
                    TextColumn("{task.description}"),
                    BarColumn(),
                    TextColumn("{task.fields[amount]}"),
                    TimeRemainingColumn(),
                    console=err,
                    transient=True,
                )
                self._board.start()
            self._tasks[label] = self._board.add_task(label, total=total, amount="")
        assert self._board is not None
        self._board.update(self._tasks[label], completed=done, total=total, amount=_amount(done, total, unit))

    def stop(self) -> None:
        if self._board is not None:
            self._board.stop()


_last_logged: dict[str, float] = {}


def _logged(label: str, done: int, total: int | None, unit: str = "bytes") -> None:
    now = time.monotonic()
    last = _last_logged.setdefault(label, now - LOG_EVERY_SECONDS + SHOW_AFTER_SECONDS)
    if done != total and now - last >= LOG_EVERY_SECONDS:
        _last_logged[label] = now
        err.print(f"{label}: {_amount(done, total, unit)}", markup=False)


def _amount(done: int, total: int | None, unit: str) -> str:
    """`12.0/92.9 MB`, `3/30 layers`."""
    if unit != "bytes":
        return f"{done}/{counted_as(total, unit)}" if total is not None else counted_as(done, unit)
    return f"{done / 1e6:.1f}/{total / 1e6:.1f} MB" if total is not None else f"{done / 1e6:.1f} MB"


def counted_as(number: int, units: str) -> str:
    """`3 layers`, `1 layer`: units are in the plural."""
    return f"{number} {units.removesuffix('s') if number == 1 else units}"


def memory_text(size: float) -> str:
    """29.26 GiB, 34.80 MiB."""
    return f"{size / (1 << 30):.2f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.2f} MiB"
