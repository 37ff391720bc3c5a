"""A file of JSON lines that may be growing, damaged or huge: read from a byte on, a bounded part at a time."""

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from deepseek.server.protocol.training import RecordFile, RecordPage

MOST_READ = 8 << 20  # bytes of a file for one answer
MOST_TOLD = 2 << 20  # bytes of lines in one answer
_FIRST_TAIL, _MOST_TAIL = 64 << 10, 4 << 20  # bytes from the end in which the last line is looked for
_STEP = re.compile(rb'\{"step": ?(\d{1,15}),')  # how the trainer begins a line: what is left out need not be parsed
_LOADS = "layers"


@dataclass(frozen=True, kw_only=True, slots=True)
class Thinning:
    """Which lines of a log are told: of every so many steps one, with the loads of experts for every so many.

    The first step is always told. A line that is told for its loads alone is told whole.
    """

    every: int = 1
    loads_every: int = 1

    def takes(self, step: int) -> bool:
        return step <= 1 or step % self.every == 0 or self.takes_loads(step)

    def takes_loads(self, step: int) -> bool:
        return step % self.loads_every == 0


ALL = Thinning()


def open_regular(path: Path) -> BinaryIO:
    """Raises OSError also for what is not a regular file: opening a pipe would wait for ever."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file")
    return os.fdopen(descriptor, "rb", buffering=0)


def file_state(file: BinaryIO) -> RecordFile:
    """version: changes when the file is replaced, as a run does that goes back to a checkpoint."""
    found = os.fstat(file.fileno())
    return RecordFile(bytes=found.st_size, version=f"{found.st_ino:x}")


def read_lines(path: Path, offset: int, thinning: Thinning = ALL) -> RecordPage:
    """The whole lines from byte `offset` on, as many as one answer may hold; from the start if the file is shorter.

    A last line without its end is left for later. Lines that are no JSON object with a step are counted, not told.
    Raises OSError.
    """
    with open_regular(path) as file:
        state = file_state(file)
        offset = offset if offset <= state.bytes else 0
        file.seek(offset)
        data = file.read(MOST_READ)
    end = data.rfind(b"\n") + 1
    has_more = offset + len(data) < state.bytes
    page = RecordPage(offset=offset, next_offset=offset + end, bytes=state.bytes, version=state.version)
    if not end and has_more:  # a line that no answer can hold
        page.damaged, end = 1, len(data)
    page.next_offset = offset + end
    page.has_more = has_more
    told = 0
    for start, line in _lines(data, end):
        record = _told(line, thinning)
        if record is None:
            page.damaged += bool(line.strip())
        elif record and told + len(record) > MOST_TOLD:
            page.next_offset, page.has_more = offset + start, True
            break
        elif record:
            told += len(record)
            page.lines.append(msgspec.Raw(record))
    return page


def _lines(data: bytes, end: int) -> Iterator[tuple[int, bytes]]:
    """(place, line) of the whole lines before `end`."""
    start = 0
    while (stop := data.find(b"\n", start, end)) >= 0:
        yield start, data[start:stop]
        start = stop + 1


def _told(line: bytes, thinning: Thinning) -> bytes | None:
    """The line as it is told, empty when it is left out; None when it is damaged or longer than an answer may be."""
    begins = _STEP.match(line)
    if begins and not thinning.takes(int(begins[1])):
        return b""
    record = parsed(line)
    if record is None:
        return None
    step = record["step"]
    if not thinning.takes(step):
        return b""
    if not thinning.takes_loads(step):
        record.pop(_LOADS, None)
    try:
        told: bytes = msgspec.json.encode(record)  # a number that is not finite becomes null
    except (ValueError, RecursionError):  # half a surrogate pair is no text
        return None
    return told if len(told) <= MOST_TOLD else None


def parsed(line: bytes) -> dict[str, Any] | None:
    """A record with a step that counts; None for whatever else a line may hold."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not is_count(record.get("step")):
        return None
    return record


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def last_record(file: BinaryIO) -> dict[str, Any] | None:
    """The last whole line that is one; None when the end of the file holds none. Raises OSError."""
    size = os.fstat(file.fileno()).st_size
    tail = _FIRST_TAIL
    while True:
        file.seek(max(0, size - tail))
        lines = file.read(tail).split(b"\n")[:-1]
        whole = lines if tail >= size else lines[1:]
        record = next((found for line in reversed(whole) if (found := parsed(line)) is not None), None)
        if record is not None or tail >= min(size, _MOST_TAIL):
            return record
        tail *= 4
