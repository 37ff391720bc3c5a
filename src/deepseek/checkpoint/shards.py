"""Safetensors files written as the tensors come, before it is known how many there will be.

The header stands first in a file but is known last, so room for it is left free and filled up with spaces, as the
format allows.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from deepseek.checkpoint.dtypes import PLAIN
from deepseek.checkpoint.layout import SCALE_SUFFIX
from deepseek.checkpoint.safetensors import LENGTH_BYTES
from deepseek.checkpoint.tensor import RawTensor
from deepseek.checkpoint.weight_files import SINGLE
from deepseek.families.weights import Shape

_METADATA = {"format": "pt"}  # Transformers asks for it
_MAX_ROOM = 4 << 20  # a shard whose header would outgrow this is ended
_OFFSET = 10**15  # no position in a shard is longer in digits


class ShardWriter:
    """Writes model.safetensors, or model-00001-of-0000N.safetensors when there is more than fits `max_shard_bytes`.

    names: of all tensors to come, to know how much room headers need. Every tensor begins at a multiple of its element
    size. Leaving the block without an error forces everything to disk and gives the files their names.
    """

    def __init__(self, folder: Path, names: Mapping[str, Shape], *, max_shard_bytes: int, with_scales: bool) -> None:
        self.folder = folder
        self._max_shard_bytes = max_shard_bytes
        self._room = _room(names, with_scales)
        self._shards: list[dict[str, Any]] = []  # the headers
        self._file: BinaryIO | None = None
        self._header_bytes = self._data_bytes = self._total_bytes = 0

    def add(self, name: str, tensor: RawTensor) -> None:
        line = _line(name, tensor.dtype, tensor.shape, _OFFSET)
        if self._file is None or not self._fits(line, tensor):
            self._end_shard()
            self._begin_shard()
        assert self._file is not None
        start, stop = self._data_bytes, self._data_bytes + tensor.data.nbytes
        self._file.write(tensor.data.data)
        self._shards[-1][name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, stop]}
        self._header_bytes += line
        self._data_bytes = stop
        self._total_bytes += stop - start

    def _fits(self, line: int, tensor: RawTensor) -> bool:
        aligned = self._data_bytes % PLAIN[tensor.dtype].block_bytes == 0
        room = self._header_bytes + line <= self._room
        return aligned and room and self._data_bytes + tensor.data.nbytes <= self._max_shard_bytes

    def _begin_shard(self) -> None:
        self._file = self._part(len(self._shards)).open("xb")
        self._shards.append({"__metadata__": _METADATA})
        self._file.seek(LENGTH_BYTES + self._room)
        self._header_bytes, self._data_bytes = _frame(), 0

    def _end_shard(self) -> None:
        if self._file is None:
            return
        header = json.dumps(self._shards[-1], separators=(",", ":"), ensure_ascii=False).encode()
        assert len(header) <= self._room, "the header outgrew its room"
        self._file.seek(0)
        self._file.write(self._room.to_bytes(LENGTH_BYTES, "little") + header.ljust(self._room))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None

    def index(self) -> dict[str, Any] | None:
        """What model.safetensors.index.json says; None when there is a single file."""
        if len(self._shards) == 1:
            return None
        weight_map = {
            name: self._file_name(at)
            for at, header in enumerate(self._shards)
            for name in header
            if name != "__metadata__"
        }
        return {"metadata": {"total_size": self._total_bytes}, "weight_map": dict(sorted(weight_map.items()))}

    def _file_name(self, shard: int) -> str:
        return SINGLE if len(self._shards) == 1 else f"model-{shard + 1:05}-of-{len(self._shards):05}.safetensors"

    def _part(self, shard: int) -> Path:
        return self.folder / f"part-{shard}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._end_shard()
                for shard in range(len(self._shards)):
                    self._part(shard).rename(self.folder / self._file_name(shard))
        finally:
            if self._file is not None:
                with contextlib.suppress(OSError):  # closing writes what is left; the first error is the one to tell
                    self._file.close()


def _line(name: str, dtype: str, shape: Shape, offset: int) -> int:
    entry = {name: {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset]}}
    return len(json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode())


def _frame() -> int:
    return len(json.dumps({"__metadata__": _METADATA}))


def _room(names: Mapping[str, Shape], with_scales: bool) -> int:
    """Bytes that the header of all tensors could need, up to a limit; a multiple of 64, so that data is aligned."""
    longest = max(PLAIN, key=len)
    needed = _frame()
    for name, shape in names.items():
        needed += _line(name, longest, shape, _OFFSET)
        if with_scales:
            needed += _line(name + SCALE_SUFFIX, longest, shape, _OFFSET)
    return -(-(min(needed, _MAX_ROOM) + LENGTH_BYTES) // 64) * 64 - LENGTH_BYTES
