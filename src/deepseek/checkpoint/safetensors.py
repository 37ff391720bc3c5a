"""One .safetensors file, mapped into memory after every number in its header was checked.

Layout: 8 bytes little-endian header length, the header (JSON), the data. Data is contiguous: no overlap, hole or rest.
Tensors that do not lie at a multiple of their element size (files of before 2023) are allowed.
"""

import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from deepseek.checkpoint.dtypes import PLAIN, byte_size
from deepseek.checkpoint.file_kinds import SNIFFED_BYTES, describe
from deepseek.checkpoint.strict_json import parse_object
from deepseek.checkpoint.tensor import RawTensor
from deepseek.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000  # the limit of the reference implementation
MAX_NAME = 512
MAX_DIMENSIONS = 8
LENGTH_BYTES = 8

_AGAIN = "the file is damaged or incomplete: fetch it again"
_FIELDS = {"dtype", "shape", "data_offsets"}
_COMPARED = 1 << 22


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor in a file: bytes start to stop, counted from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsFile:
    """Maps the file and reads none of its data. Raises CheckpointError naming the file and the tensor.

    The mapping is backed by the file: if another program shortens it while a tensor is being read, the system ends the
    process (SIGBUS). `tensor` refuses files that have already shrunk; files that are replaced by renaming are safe.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb", opener=_open_without_waiting) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise CheckpointError(f"{path}: not a regular file")
                self._size = status.st_size
                self.entries, self.metadata = read_header(file, self._size, str(path))
                self._map = mmap.mmap(file.fileno(), self._size, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be opened ({error.strerror})") from None

    def tensor(self, name: str) -> RawTensor:
        """A view of the mapped file, which need not be aligned: see `RawTensor.aligned`."""
        entry = self.entries[name]
        if self._map.size() < self._size:
            raise CheckpointError(f"{self.path}: was shortened while open; restore it and open it again")
        data = np.frombuffer(self._map, np.uint8, entry.stop - entry.start, entry.start)
        return RawTensor(dtype=entry.dtype, shape=entry.shape, data=data)

    def close(self) -> None:
        """Unmaps at once, or when the last tensor that is still held is dropped."""
        try:
            self._map.close()
        except BufferError:
            del self._map


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of a file, under the name it has there."""

    file: SafetensorsFile
    name: str

    @property
    def entry(self) -> Entry:
        return self.file.entries[self.name]

    def tensor(self) -> RawTensor:
        return self.file.tensor(self.name)

    def same_values(self, other: "Stored") -> bool:
        """Whether both hold the same bytes in the same type and shape; reads them."""
        if (self.entry.dtype, self.entry.shape) != (other.entry.dtype, other.entry.shape):
            return False
        ours, theirs = self.tensor().data, other.tensor().data  # in pieces: NumPy makes an array of truth values
        parts = (slice(start, start + _COMPARED) for start in range(0, ours.size, _COMPARED))
        return all(np.array_equal(ours[part], theirs[part]) for part in parts)


def _open_without_waiting(path: str, flags: int) -> int:
    """A named pipe would otherwise wait for a writer for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_header(file: BinaryIO, size: int, where: str) -> tuple[dict[str, Entry], dict[str, str]]:
    """Every tensor of a file of `size` bytes, in the order of the header, and its metadata. Raises CheckpointError."""
    start = file.read(LENGTH_BYTES)
    if len(start) < LENGTH_BYTES:
        looks = describe(start)
        hint = f"it looks like {looks}" if looks else _AGAIN
        raise CheckpointError(f"{where}: {size} bytes are no safetensors file; {hint}")
    length = int.from_bytes(start, "little")
    if length > min(MAX_HEADER_BYTES, size - LENGTH_BYTES):
        looks = describe(start + file.read(SNIFFED_BYTES))
        hint = f"it looks like {looks}" if looks else _AGAIN
        raise CheckpointError(
            f"{where}: header of {length:,} bytes in a file of {size:,} (at most {MAX_HEADER_BYTES:,}); {hint}"
        )
    header = file.read(length)
    if not header.startswith(b"{"):
        looks = describe(start + header[:SNIFFED_BYTES] + file.read(SNIFFED_BYTES))
        hint = f"it looks like {looks}" if looks else _AGAIN
        raise CheckpointError(f"{where}: the header is not a JSON object; {hint}")
    values = parse_object(header, f"{where}: header", integers_only=True)
    metadata = _metadata(values.pop("__metadata__", None), where)
    data = LENGTH_BYTES + length
    entries = {name: _entry(name, value, data, where) for name, value in values.items()}
    _check_contiguous(entries, data, size, where)
    return entries, metadata


def _metadata(values: object, where: str) -> dict[str, str]:
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise CheckpointError(f"{where}: __metadata__ must map names to strings; {_AGAIN}")
    return values


def _entry(name: str, value: Any, data: int, where: str) -> Entry:
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise CheckpointError(
            f"{where}: tensor name {name[:60]!a} is empty, longer than {MAX_NAME} or not printable; {_AGAIN}"
        )
    at = f"{where}: tensor {name!r}"
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise CheckpointError(f"{at}: needs exactly dtype, shape and data_offsets; {_AGAIN}")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in PLAIN:
        raise CheckpointError(f"{at}: dtype {str(dtype)[:40]!r} is unknown; known are {', '.join(PLAIN)}")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise CheckpointError(f"{at}: shape must be at most {MAX_DIMENSIONS} sizes of 0 or more, not {_brief(shape)}")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{at}: data_offsets must be two positions of 0 or more, not {_brief(offsets)}")
    start, stop = offsets
    needed = byte_size(dtype, tuple(shape))
    if stop - start != needed:
        raise CheckpointError(
            f"{at}: data_offsets {start}..{stop} hold {stop - start} bytes, but {dtype} {_brief(shape)} needs {needed};"
            f" {_AGAIN}"
        )
    return Entry(dtype=dtype, shape=tuple(shape), start=data + start, stop=data + stop)


def _are_sizes(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 63 for value in values)


def _check_contiguous(entries: dict[str, Entry], data: int, size: int, where: str) -> None:
    reached, before = data, "the header"
    end = max((entry.stop for entry in entries.values()), default=data)
    if end > size:
        raise CheckpointError(
            f"{where}: truncated: {end - size:,} of {end:,} bytes are missing, tensors at the end among them; {_AGAIN}"
        )
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != reached:
            what = "overlaps" if entry.start < reached else "leaves a hole after"
            raise CheckpointError(f"{where}: tensor {name!r} {what} {before}; {_AGAIN}")
        reached, before = entry.stop, repr(name)
    if reached != size:
        raise CheckpointError(f"{where}: {size - reached:,} bytes after the last tensor; {_AGAIN}")


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
