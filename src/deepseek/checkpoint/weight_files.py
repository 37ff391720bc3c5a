"""Which .safetensors files of a folder are the model's, and which of them holds each tensor."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deepseek.checkpoint.confined import confined_file, is_plain_name
from deepseek.checkpoint.safetensors import SafetensorsFile, Stored
from deepseek.checkpoint.strict_json import read_object
from deepseek.errors import CheckpointError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"

_INDEX_SUFFIX = ".safetensors.index.json"
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
_MAX_INDEX_BYTES = 100_000_000
# Files that lie beside a model and are not it: Mistral's own copy, adapters, the state of a training run.
_BESIDE = re.compile(r"(consolidated|adapter_model|optimizer|scheduler|vae|mmproj)([._-].*)?\.safetensors")


@dataclass(frozen=True)
class WeightFiles:
    """tensors: every tensor under the name in its file. files: all that are open. absent: tensors that the index
    lists in files that are not there, with the file."""

    tensors: dict[str, Stored]
    files: list[SafetensorsFile]
    absent: dict[str, str] = field(default_factory=dict)

    def close(self) -> None:
        for file in self.files:
            file.close()


def open_files(path: Path) -> WeightFiles:
    """The files of a folder, or one file. Reads headers only. Raises CheckpointError."""
    folder = path if path.is_dir() else path.parent
    index = None if path.is_file() else _index_of(folder)
    names = [path.name] if path.is_file() else sorted(set(index.values())) if index else _unlisted(folder)
    absent = {name for name in names if index and not (folder / name).exists()}
    files: list[SafetensorsFile] = []
    try:
        for name in names:
            if name not in absent:
                files.append(SafetensorsFile(confined_file(folder, name)))
        return WeightFiles(
            _by_name(files, index or {}),
            files,
            {tensor: file for tensor, file in (index or {}).items() if file in absent},
        )
    except BaseException:
        for file in files:
            file.close()
        raise


def index_file(folder: Path) -> Path | None:
    """The index that says where tensors lie. Where there is model.safetensors too, that wins, as in Transformers."""
    if (folder / SINGLE).exists():
        return None
    if (folder / INDEX).exists():
        return folder / INDEX
    found = [path for path in sorted(folder.glob("*" + _INDEX_SUFFIX)) if not path.name.startswith("consolidated")]
    return found[0] if len(found) == 1 else None


def shards_of(folder: Path) -> set[str]:
    """The file names in the index of `folder`; none without one."""
    return set((_index_of(folder) or {}).values())


def is_shard(path: Path) -> bool:
    """Whether this file is a part of the model of its folder, not a model of its own."""
    if (shard := _SHARD.fullmatch(path.name)) and int(shard[3]) > 1:
        return True
    return index_file(path.parent) is not None and path.name in shards_of(path.parent)


def _index_of(folder: Path) -> dict[str, str] | None:
    """Tensor name -> file name."""
    found = index_file(folder)
    if found is None:
        return None
    path = confined_file(folder, found.name)
    weight_map = read_object(path, max_bytes=_MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path}: weight_map must map tensor names to files; fetch the checkpoint again")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not is_plain_name(file) or not file.endswith(".safetensors"):
            raise CheckpointError(
                f"{path}: weight_map: {name!r} lies in {str(file)[:80]!r}, which is not the plain name of a "
                ".safetensors file in this folder"
            )
    return weight_map


def _unlisted(folder: Path) -> list[str]:
    """Without an index: model.safetensors, else the only file, else all parts of the only sharded model."""
    if (folder / SINGLE).exists():
        return [SINGLE]
    found = sorted(file.name for file in folder.glob("*.safetensors"))
    names = [name for name in found if not _BESIDE.fullmatch(name)]
    if not names and found:
        raise CheckpointError(f"{folder / found[0]}: {_why_not(found[0])}")
    shards = {name: shard for name in names if (shard := _SHARD.fullmatch(name))}
    if shards and len({(shard[1], shard[3]) for shard in shards.values()}) == 1:
        stem, _, count = next(iter(shards.values())).groups()
        return _all_shards(folder, stem, int(count), shards)
    if len(names) != 1:
        raise CheckpointError(
            f"{folder}: {len(names)} .safetensors files and no {INDEX} that says which belong together "
            f"({', '.join(names[:8])}); fetch it, or give the path of one file"
        )
    return names


def _all_shards(folder: Path, stem: str, count: int, shards: Iterable[str]) -> list[str]:
    names = [f"{stem}-{number:05}-of-{count:05}.safetensors" for number in range(1, min(count, 100_000) + 1)]
    if missing := sorted(set(names) - set(shards)):
        others = f" and {len(missing) - 1} other parts" if len(missing) > 1 else ""
        raise CheckpointError(f"{folder / missing[0]}{others}: file is missing; fetch the checkpoint again")
    return names


def _why_not(name: str) -> str:
    if name.startswith("adapter_model"):
        return "a LoRA adapter, not a whole model; merge it into its base model (merge_and_unload of PEFT)"
    if name.startswith("consolidated"):
        return "Mistral's own layout of the weights; fetch the model-*.safetensors files of the same repository"
    return "not the weights of a model; fetch model.safetensors"


def _by_name(files: Iterable[SafetensorsFile], index: Mapping[str, str]) -> dict[str, Stored]:
    """Of a tensor in two files the one that the index names, else either of two equal ones."""
    tensors: dict[str, Stored] = {}
    for file in files:
        for name in file.entries:
            new = Stored(file, name)
            other = tensors.get(name)
            if other is None or index.get(name) == file.path.name:
                tensors[name] = new
            elif index.get(name) != other.file.path.name and not new.same_values(other):
                raise CheckpointError(
                    f"{file.path}: tensor {name!r} is also in {other.file.path.name}, with other values; remove one"
                )
    return tensors
