"""Tensors in a safetensors file of their own, with a JSON object beside them: state that a run goes on from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from deepseek.checkpoint.dtypes import DTYPES
from deepseek.checkpoint.safetensors import SafetensorsFile
from deepseek.checkpoint.strict_json import parse_object
from deepseek.checkpoint.tensor import RawTensor
from deepseek.errors import CheckpointError
from deepseek.models.loading import fill
from deepseek.models.saving import raw_tensor

_METADATA, _KEY = "__metadata__", "json"
_TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def write_tensors(file: BinaryIO, tensors: Mapping[str, Tensor], values: Mapping[str, Any] | None = None) -> None:
    """The header, with `values` as JSON in its metadata, then the tensors one by one."""
    header: dict[str, Any] = {} if values is None else {_METADATA: {_KEY: json.dumps(values, sort_keys=True)}}
    raw = {name: raw_tensor(name, tensor.detach()) for name, tensor in tensors.items()}
    offset = 0
    for name, tensor in raw.items():
        stop = offset + tensor.data.nbytes
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 64)
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in raw.values():
        file.write(tensor.data.data)


def read_tensors(path: Path, targets: Mapping[str, Tensor]) -> None:
    """Fill `targets` in place with the tensors of a file, which must be exactly these. Raises CheckpointError."""
    file = SafetensorsFile(path)
    try:
        if differing := sorted(file.entries.keys() ^ targets.keys()):
            raise CheckpointError(f"{path}: tensor {differing[0]!r} is not in both the file and what it is read into")
        for name, target in targets.items():
            raw = file.tensor(name)
            if raw.shape != tuple(target.shape):
                raise CheckpointError(
                    f"{path}: tensor {name!r} has shape {list(raw.shape)}, this run needs {list(target.shape)}"
                )
            fill(target, raw)
    finally:
        file.close()


def read_all(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """New tensors with all that the file holds, and its JSON values. Raises CheckpointError."""
    file = SafetensorsFile(path)
    try:
        tensors = {name: _new(path, name, file.tensor(name)) for name in file.entries}
        return tensors, parse_object(file.metadata.get(_KEY, "{}").encode(), f"{path}: metadata")
    finally:
        file.close()


def _new(path: Path, name: str, raw: RawTensor) -> Tensor:
    if raw.dtype not in _TYPES:
        raise CheckpointError(f"{path}: tensor {name!r} has type {raw.dtype}; {', '.join(_TYPES)} can be read here")
    assert DTYPES[raw.dtype].block_elements == 1
    target = torch.empty(raw.shape, dtype=_TYPES[raw.dtype])
    fill(target, raw)
    return target


def read_values(path: Path) -> dict[str, Any]:
    """The JSON values of a file, none of its tensors. Raises CheckpointError."""
    file = SafetensorsFile(path)
    try:
        return parse_object(file.metadata.get(_KEY, "{}").encode(), f"{path}: metadata")
    finally:
        file.close()
