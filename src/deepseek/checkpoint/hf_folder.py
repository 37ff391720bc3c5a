"""A checkpoint in the Hugging Face layout: config.json beside model.safetensors, or shards and their index."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from deepseek.checkpoint.configuration import read_config
from deepseek.checkpoint.confined import confined_file, is_plain_name
from deepseek.checkpoint.contents import check_contents, config_as_stored, is_harmless, shared_weights
from deepseek.checkpoint.layout import Place, check_types, places_of, read
from deepseek.checkpoint.safetensors import SafetensorsFile
from deepseek.checkpoint.strict_json import read_object
from deepseek.checkpoint.tensor import Bytes, RawTensor
from deepseek.errors import CheckpointError
from deepseek.families.weights import weight_shapes

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

_MAX_INDEX_BYTES = 100_000_000
_COMPARED = 1 << 22
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


class SafetensorsCheckpoint:
    """See `checkpoint.Checkpoint`. Opens every file and checks every header, name, shape and type; reads no weights.

    path: a folder, or one .safetensors file beside its config.json.
    """

    format = "safetensors"

    def __init__(self, path: Path, *, allow_unknown: bool = False) -> None:
        self.path = path
        folder = path if path.is_dir() else path.parent
        config = read_config(confined_file(folder, CONFIG), allow_unknown=allow_unknown)
        self._sources = open_files(path, allow_unknown=allow_unknown)
        try:
            self.config = config_as_stored(config, self._sources)
            self._places = self._check(allow_unknown)
        except BaseException:
            self.close()
            raise

    def _check(self, allow_unknown: bool) -> dict[str, Place]:
        config = self.config
        places = {name: at for name, at in places_of(config, self._sources).items() if not is_harmless(name)}
        shapes = {name: place.shape for name, place in places.items()}
        for name, other in shared_weights(config).items():
            if name not in places and other in places:
                places[name], shapes[name] = places[other], shapes[other]
        if config.tie_word_embeddings and _HEAD in places and _EMBEDDING in places:
            self._check_tied(places[_HEAD], places[_EMBEDDING])
            del shapes[_HEAD]
        check_contents(
            config,
            shapes,
            where=str(self.path),
            file_of=lambda name: str(places[name].file.path),
            allow_unknown=allow_unknown,
        )
        known = {name: places[name] for name in weight_shapes(config)}
        check_types(config, known, self._sources)
        return known

    def _check_tied(self, head: Place, embedding: Place) -> None:
        """A copy of the embedding as head is harmless; another head would be dropped in silence."""
        ours, theirs = head.file.tensor(_HEAD), embedding.file.tensor(_EMBEDDING)
        if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape) or not _same_bytes(ours.data, theirs.data):
            raise CheckpointError(
                f"{head.file.path}: tensor {_HEAD!r} differs from {_EMBEDDING!r}, but config.json ties them; set "
                "tie_word_embeddings to false there to use it, or remove it"
            )

    def names(self) -> Sequence[str]:
        return list(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._places[name].shape

    def dtype(self, name: str) -> str:
        return self._places[name].entry.dtype

    def raw(self, name: str) -> RawTensor:
        return read(self._places[name], self._sources, self.config.fp8_block)

    def close(self) -> None:
        for file in set(self._sources.values()):
            file.close()
        self._sources = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _same_bytes(ours: Bytes, theirs: Bytes) -> bool:
    """Compared in pieces: NumPy would make an array of truth values as large as the weights."""
    parts = (slice(start, start + _COMPARED) for start in range(0, ours.size, _COMPARED))
    return all(np.array_equal(ours[part], theirs[part]) for part in parts)


def open_files(path: Path, *, allow_unknown: bool = False) -> dict[str, SafetensorsFile]:
    """Every tensor of a checkpoint by the name in its file. Raises CheckpointError.

    allow_unknown: shards may hold tensors that the index does not list.
    """
    folder = path if path.is_dir() else path.parent
    index = None if path.is_file() else _index_of(folder)
    names = sorted(set(index.values())) if index is not None else [path.name if path.is_file() else _only(folder)]
    opened: list[SafetensorsFile] = []
    try:
        for name in names:
            opened.append(SafetensorsFile(confined_file(folder, name)))
        return _by_name(opened) if index is None else _by_index(index, opened, folder, allow_unknown)
    except BaseException:
        for file in opened:
            file.close()
        raise


def _index_of(folder: Path) -> dict[str, str] | None:
    """Tensor name -> file name. Where there is model.safetensors too, it wins, as in Transformers."""
    if (folder / SINGLE).exists() or not (folder / INDEX).exists():
        return None
    path = confined_file(folder, INDEX)
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


def shards_of(folder: Path) -> set[str]:
    """The file names in the index of `folder`; none without one."""
    return set((_index_of(folder) or {}).values())


def _only(folder: Path) -> str:
    if (folder / SINGLE).exists():
        return SINGLE
    found = sorted(file.name for file in folder.glob("*.safetensors"))
    if len(found) != 1:
        raise CheckpointError(
            f"{folder}: {len(found)} .safetensors files and no {INDEX} that says which belong together; fetch it, or "
            "give the path of one file"
        )
    return found[0]


def _by_name(files: list[SafetensorsFile]) -> dict[str, SafetensorsFile]:
    sources: dict[str, SafetensorsFile] = {}
    for file in files:
        for name in file.entries:
            if name in sources:
                raise CheckpointError(f"{file.path}: tensor {name!r} is also in {sources[name].path.name}; remove one")
            sources[name] = file
    return sources


def _by_index(
    index: dict[str, str], files: list[SafetensorsFile], folder: Path, allow_unknown: bool
) -> dict[str, SafetensorsFile]:
    sources = _by_name(files)
    for name, file in index.items():
        if name not in sources or sources[name].path.name != file:
            raise CheckpointError(f"{folder / file}: tensor {name!r}, which {INDEX} places here, is missing")
    for name, source in sources.items():
        if name not in index and not allow_unknown and not is_harmless(name):
            raise CheckpointError(f"{source.path}: tensor {name!r} is not listed in {INDEX}; remove it or list it")
    return {name: sources[name] for name in index}
