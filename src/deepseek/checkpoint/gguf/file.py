"""GgufFile: a GGUF model as one mapping of names to bytes, whether it lies in one file or in several."""

import mmap
import re
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from deepseek.checkpoint.gguf.format import MAX_PARTS
from deepseek.checkpoint.gguf.parser import Header, TensorEntry, parse_header
from deepseek.checkpoint.tensor import Bytes
from deepseek.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """dtype: a tag of `checkpoint.dtypes`. shape: outermost first. part, offset, size: where its bytes lie."""

    dtype: str
    shape: tuple[int, ...]
    part: int
    offset: int
    size: int


PART_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.IGNORECASE)


class GgufFile:
    """An open GGUF model. path may be any of the parts of a split model; all of them are then read.

    metadata: the keys of the (first) file; arrays of numbers are NumPy arrays, all other arrays are lists.
    Raises CheckpointError naming the file and the field for anything damaged or hostile.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._maps: list[mmap.mmap] = []
        headers: list[Header] = []
        for part in _parts(self.path):
            mapped = _map(part)
            self._maps.append(mapped)
            headers.append(parse_header(mapped, str(part)))
            if len(headers) == 1:
                _check_split(self.path, headers[0].metadata, _parts(self.path))
        self.metadata: dict[str, Any] = headers[0].metadata
        self.tensors: dict[str, GgufTensor] = {}
        for index, header in enumerate(headers):
            self._add(index, header.tensors)
        self._check_total()

    def data(self, name: str) -> Bytes:
        """The bytes of a tensor: a read-only view of the mapped file."""
        tensor = self.tensors[name]
        return np.frombuffer(self._maps[tensor.part], np.uint8, tensor.size, tensor.offset)

    def close(self) -> None:
        """Let go of the file. Its memory is unmapped when the last view of it goes."""
        self._maps.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _add(self, part: int, entries: dict[str, TensorEntry]) -> None:
        for name, entry in entries.items():
            if name in self.tensors:
                raise CheckpointError(f"{self.path}: the tensor {name!r} appears in two parts")
            self.tensors[name] = GgufTensor(entry.dtype, entry.shape, part, entry.offset, entry.size)

    def _check_total(self) -> None:
        total = self.metadata.get("split.tensors.count")
        if total is not None and total != len(self.tensors):
            raise CheckpointError(
                f"{self.path}: split.tensors.count is {total}, but the parts hold {len(self.tensors)} tensors; "
                "fetch all parts again"
            )


def read_gguf_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a GGUF file (of the first part of a split one). Raises CheckpointError."""
    with GgufFile(path) as file:
        return file.metadata


def parse_file(path: Path) -> Header:
    """The header of one file, be it a whole model or a part. Raises CheckpointError."""
    return parse_header(_map(path), str(path))


def part_names(path: Path) -> list[Path]:
    """All parts of a split model in their order; the file itself where the name does not say that it is a part."""
    found = PART_NAME.fullmatch(path.name)
    if found is None:
        return [path]
    count = min(int(found["count"]), MAX_PARTS)
    return [path.with_name(f"{found['stem']}-{at:05d}-of-{count:05d}{found['suffix']}") for at in range(1, count + 1)]


def _parts(path: Path) -> list[Path]:
    found = PART_NAME.fullmatch(path.name)
    if found is None:
        return [path]
    count = int(found["count"])
    if not 1 <= int(found["number"]) <= count <= MAX_PARTS:
        raise CheckpointError(f"{path}: part {found['number']} of {found['count']} cannot be")
    parts = part_names(path)
    if missing := [part.name for part in parts if not part.exists()]:
        raise CheckpointError(
            f"{path}: {len(missing)} of {count} parts are missing ({', '.join(missing[:4])}); a split model "
            "needs all of its parts in one folder: fetch them too"
        )
    return parts


def _check_split(path: Path, metadata: dict[str, Any], parts: list[Path]) -> None:
    count = metadata.get("split.count", 1)
    if count not in (len(parts), 0 if len(parts) == 1 else count):
        raise CheckpointError(
            f"{path}: split.count is {count}, but its name says {len(parts)}; keep the names of the parts as published "
            "(model-00001-of-00003.gguf)"
        )


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; a split model needs all of its parts in one folder") from None
    except ValueError:
        raise CheckpointError(f"{path} is empty") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
