"""Writing a checkpoint in the Hugging Face layout, one tensor in memory at a time."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from deepseek.checkpoint.atomic import clear_disk_errors
from deepseek.checkpoint.confined import is_plain_name
from deepseek.checkpoint.dtypes import byte_size
from deepseek.checkpoint.fp8 import scale_shape
from deepseek.checkpoint.hf_folder import CONFIG
from deepseek.checkpoint.layout import SCALE_SUFFIX, WEIGHT_TYPES
from deepseek.checkpoint.shards import ShardWriter
from deepseek.checkpoint.staged import staged_folder
from deepseek.checkpoint.tensor import RawTensor
from deepseek.checkpoint.weight_files import INDEX, SINGLE
from deepseek.config import ModelConfig
from deepseek.errors import CheckpointError
from deepseek.families import config_to_hf
from deepseek.families.weights import Shape, weight_shapes
from deepseek.hub.cache import in_units
from deepseek.progress import Report, silent

MAX_SHARD_BYTES = 5_000_000_000  # as Transformers

_TORCH_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "bfloat16"}
_SPARE_BYTES = 16 << 20  # for headers, the configuration and what the file system needs itself


def save_checkpoint(
    folder: Path,
    config: ModelConfig,
    tensors: Iterable[tuple[str, RawTensor]],
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    extra_files: Mapping[str, bytes] | None = None,
    total_bytes: int | None = None,
    report: Report = silent,
) -> None:
    """Write config.json, the weights and `extra_files` (name -> content) to `folder`, replacing what was saved there.

    tensors: every weight of `config` exactly once, in any order; taken and written one by one. FP8 keeps its scales.
    total_bytes: of all tensors, if known, so that a disk that is too small is refused before anything is written; for
    a list it is counted here. An error, a kill or a full disk leaves an earlier checkpoint in `folder` as it was (the
    disk must hold both for a moment). Raises CheckpointError; see `staged` for how the folder is replaced.
    """
    extra_files = extra_files or {}
    _check_extra_names(extra_files)
    expected = weight_shapes(config)
    if total_bytes is None and isinstance(tensors, Collection):
        total_bytes = sum(_stored_bytes(tensor) for _, tensor in tensors)
    with staged_folder(folder) as stage:
        if total_bytes is not None:
            _check_free_space(stage, folder, total_bytes + sum(map(len, extra_files.values())))
        writer = ShardWriter(stage, expected, max_shard_bytes=max_shard_bytes, with_scales=config.fp8_block is not None)
        with writer:
            types = _write_weights(writer, config, expected, tensors, total_bytes, report)
        if index := writer.index():
            _write(stage / INDEX, _json(index))
        _write(stage / CONFIG, _json(_config_values(config, types)))
        for name, content in extra_files.items():
            _write(stage / name, content)


def _write_weights(
    writer: ShardWriter,
    config: ModelConfig,
    expected: Mapping[str, Shape],
    tensors: Iterable[tuple[str, RawTensor]],
    total_bytes: int | None,
    report: Report,
) -> Counter[str]:
    """Elements by type. Raises CheckpointError unless the names are exactly those expected."""
    types: Counter[str] = Counter()
    written: set[str] = set()
    done = 0
    for name, tensor in tensors:
        _check_tensor(name, tensor, config, expected, written)
        written.add(name)
        with clear_disk_errors(writer.folder.parent):
            writer.add(name, tensor)
            if tensor.scale is not None:
                writer.add(name + SCALE_SUFFIX, tensor.scale)
        types[tensor.dtype] += tensor.elements
        done += _stored_bytes(tensor)
        report("saving weights", done, total_bytes)
    if missing := [name for name in expected if name not in written]:
        raise CheckpointError(f"cannot save: {len(missing)} weights were not given, the first is {missing[0]!r}")
    return types


def _check_tensor(
    name: str, tensor: RawTensor, config: ModelConfig, expected: Mapping[str, Shape], written: set[str]
) -> None:
    at = f"cannot save tensor {name!r}"
    if name not in expected:
        raise CheckpointError(f"{at}: the configuration ({config.family}) has no such weight")
    if name in written:
        raise CheckpointError(f"{at}: given twice")
    if tensor.shape != expected[name]:
        raise CheckpointError(f"{at}: shape {list(tensor.shape)}, the configuration asks for {list(expected[name])}")
    if tensor.dtype not in WEIGHT_TYPES:
        raise CheckpointError(
            f"{at}: type {tensor.dtype} cannot be kept in safetensors; decode it first (to_float32, from_float32)"
        )
    assert tensor.data.nbytes == byte_size(tensor.dtype, tensor.shape), f"{at}: data of another size"
    if tensor.dtype == "F8_E4M3" and (
        tensor.scale is None
        or config.fp8_block is None
        or tensor.scale_block != config.fp8_block
        or tensor.scale.shape != scale_shape(tensor.shape, config.fp8_block)
    ):
        raise CheckpointError(f"{at}: FP8 needs scales in blocks of config.fp8_block ({config.fp8_block})")


def _check_extra_names(extra_files: Mapping[str, bytes]) -> None:
    for name in extra_files:
        if not is_plain_name(name) or name in (CONFIG, INDEX, SINGLE) or name.endswith(".safetensors"):
            raise CheckpointError(f"extra file {name!r}: must be a plain name and none that the checkpoint itself uses")


def _check_free_space(at: Path, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(at).free
    if free < needed + _SPARE_BYTES:
        raise CheckpointError(
            f"{folder}: saving needs {in_units(needed)} and the disk has {in_units(free)} left; free some space "
            "or choose another disk. Nothing was changed"
        )


def _stored_bytes(tensor: RawTensor) -> int:
    return tensor.data.nbytes + (tensor.scale.data.nbytes if tensor.scale is not None else 0)


def _config_values(config: ModelConfig, types: Counter[str]) -> dict[str, Any]:
    values = {**config_to_hf(config), "torch_dtype": _TORCH_NAMES[types.most_common(1)[0][0]]}
    if types["F8_E4M3"]:
        assert config.fp8_block is not None
        values["quantization_config"] = {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": list(config.fp8_block),
        }
    return values


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        sync(file)


def sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
