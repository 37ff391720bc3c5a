"""Writing GGUF version 3: header first, then the tensors as they come, one chunk in memory at a time."""

import shutil
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from deepseek.checkpoint.atomic import atomic_file
from deepseek.checkpoint.dtypes import byte_size
from deepseek.checkpoint.gguf.format import (
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_DIMENSIONS,
    NUMBER_CODES,
    TENSOR_TYPE_NUMBERS,
    VERSIONS,
    ValueType,
)
from deepseek.checkpoint.tensor import Bytes
from deepseek.errors import CheckpointError
from deepseek.progress import Report, silent

_MAX_NAME = 63  # llama.cpp's limit for tensor names
_NUMPY_TYPES = {np.dtype("<" + code): kind for kind, code in NUMBER_CODES.items()}


@dataclass(frozen=True, slots=True)
class TensorToWrite:
    """A tensor by its GGUF name. chunks: called once, gives its bytes in order, in pieces of any size."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[Bytes]]

    @property
    def size(self) -> int:
        return byte_size(self.dtype, self.shape)


def write_gguf(
    path: str | Path, metadata: Mapping[str, Any], tensors: Sequence[TensorToWrite], *, report: Report = silent
) -> int:
    """Write `path` whole or not at all; returns its size. The same arguments give the same bytes.

    Values of metadata: bool, int (uint32, or the next wider that holds it), float (float32), str, lists of one of
    these (int32 for numbers), or NumPy arrays, whose type is kept. Raises CheckpointError before writing when the disk
    has no room, and for a tensor that GGUF cannot hold.
    """
    path = Path(path)
    header = _header(metadata, tensors)
    total = len(header) + sum(_padded(tensor.size) for tensor in tensors)
    _check_space(path, total)
    with atomic_file(path) as file:
        file.write(header)
        for tensor in tensors:
            _write_tensor(file, tensor, lambda: report(f"writing {path.name}", file.tell(), total))
    return total


def _write_tensor(file: BinaryIO, tensor: TensorToWrite, progressed: Callable[[], None]) -> None:
    written = 0
    for chunk in tensor.chunks():
        file.write(chunk.data)
        written += len(chunk)
        progressed()
    assert written == tensor.size, f"{tensor.name}: {written} bytes instead of {tensor.size}"
    file.write(bytes(_padded(written) - written))
    progressed()


def _check_space(path: Path, size: int) -> None:
    if not path.parent.is_dir():
        raise CheckpointError(f"{path}: the folder {path.parent} does not exist; create it first")
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise CheckpointError(
            f"{path} needs {size / 1e9:,.1f} GB, but only {free / 1e9:,.1f} GB are free; make room, choose another "
            "disk or a smaller type"
        )


def _padded(size: int) -> int:
    return -(-size // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT


def _header(metadata: Mapping[str, Any], tensors: Sequence[TensorToWrite]) -> bytes:
    assert "general.alignment" not in metadata, "the alignment is always the default"
    out = bytearray(MAGIC + struct.pack("<IQQ", VERSIONS[-1], len(tensors), len(metadata)))
    for key, value in metadata.items():
        out += _text(key) + _value(key, value)
    offset = 0
    names: set[str] = set()
    for tensor in tensors:
        _check_tensor(tensor, names)
        out += _text(tensor.name) + struct.pack("<I", len(tensor.shape))
        out += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape[::-1])
        out += struct.pack("<IQ", TENSOR_TYPE_NUMBERS[tensor.dtype], offset)
        offset += _padded(tensor.size)
    out += bytes(_padded(len(out)) - len(out))
    return bytes(out)


def _check_tensor(tensor: TensorToWrite, names: set[str]) -> None:
    if tensor.name in names or len(tensor.name.encode()) > _MAX_NAME:
        raise CheckpointError(f"tensor {tensor.name!r} appears twice or its name is longer than {_MAX_NAME} bytes")
    if tensor.dtype not in TENSOR_TYPE_NUMBERS or not 1 <= len(tensor.shape) <= MAX_DIMENSIONS:
        raise CheckpointError(f"tensor {tensor.name!r}: GGUF cannot hold {tensor.dtype} of shape {list(tensor.shape)}")
    names.add(tensor.name)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(key: str, value: Any) -> bytes:
    """A value with its type before it."""
    if isinstance(value, np.ndarray):
        kind = _NUMPY_TYPES[value.dtype]
        return _array(kind, len(value)) + value.tobytes()
    if isinstance(value, list):
        return _list(key, value)
    kind = _scalar_type(key, value)
    return struct.pack("<I", kind) + _scalar(kind, value)


def _list(key: str, values: list[Any]) -> bytes:
    kinds = {_scalar_type(key, value) for value in values} or {ValueType.STRING}
    if kinds <= {ValueType.UINT32, ValueType.INT32}:
        kinds = {ValueType.INT32}
    if len(kinds) > 1:
        raise CheckpointError(f"metadata {key!r}: a list of different types cannot be written to GGUF")
    (kind,) = kinds
    return _array(kind, len(values)) + b"".join(_scalar(kind, value) for value in values)


def _array(kind: ValueType, length: int) -> bytes:
    return struct.pack("<IIQ", ValueType.ARRAY, kind, length)


def _scalar_type(key: str, value: Any) -> ValueType:
    if isinstance(value, bool):
        return ValueType.BOOL
    if isinstance(value, str):
        return ValueType.STRING
    if isinstance(value, float):
        return ValueType.FLOAT32
    if isinstance(value, int):
        for kind, bits in ((ValueType.UINT32, 32), (ValueType.UINT64, 64)):
            if 0 <= value < 1 << bits:
                return kind
        return ValueType.INT32 if -(1 << 31) <= value < 0 else ValueType.INT64
    raise CheckpointError(f"metadata {key!r}: a {type(value).__name__} cannot be written to GGUF")


def _scalar(kind: ValueType, value: Any) -> bytes:
    if kind is ValueType.STRING:
        return _text(value)
    if kind is ValueType.BOOL:
        return bytes([value])
    return struct.pack("<" + NUMBER_CODES[kind], value)
