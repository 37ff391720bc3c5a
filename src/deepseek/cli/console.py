"""What every verb prints with: results on stdout, everything else (progress, errors) on stderr."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from deepseek.progress import Report

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

SHOW_AFTER_SECONDS = 1.0  # work that ends sooner needs no bar


def print_json(value: Any) -> None:
    """One JSON document on stdout, in UTF-8, unstyled: for programs."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


@contextmanager
def progress_bars() -> Iterator[Report]:
    """Yield a `Report` that draws one bar a label on stderr, from the second second on."""
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )
    counts = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )
    tasks: dict[str, tuple[Progress, TaskID]] = {}
    begun: dict[str, float] = {}
    running: list[Progress] = []

    def report(label: str, done: int, total: int | None, unit: str = "bytes") -> None:
        begun.setdefault(label, time.monotonic())
        if label not in tasks:
            if done == total or time.monotonic() - begun[label] < SHOW_AFTER_SECONDS:
                return
            board = bars if unit == "bytes" else counts
            if not running:  # rich shows one live display at a time
                board.start()
                running.append(board)
            tasks[label] = running[0], running[0].add_task(label, total=total, unit=unit)
        board, task = tasks[label]
        board.update(task, completed=done, total=total)

    try:
        yield report
    finally:
        for board in running:
            board.stop()
