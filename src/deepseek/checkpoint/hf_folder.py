"""A checkpoint in the Hugging Face layout: config.json beside model.safetensors, or shards and their index."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from deepseek.checkpoint.configuration import read_config
from deepseek.checkpoint.confined import confined_file
from deepseek.checkpoint.contents import check_contents, config_as_stored, shared_weights
from deepseek.checkpoint.layout import Place, check_types, places_of, read
from deepseek.checkpoint.safetensors import Stored
from deepseek.checkpoint.stored_names import canonical_names
from deepseek.checkpoint.tensor import RawTensor
from deepseek.checkpoint.weight_files import WeightFiles, open_files
from deepseek.config import ModelConfig
from deepseek.errors import CheckpointError
from deepseek.families.weights import weight_shapes

CONFIG = "config.json"

_NOT_THERE = 1 << 30
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


class SafetensorsCheckpoint:
    """See `checkpoint.Checkpoint`. Opens every file and checks every header, name, shape and type; reads no weights.

    path: a folder, or one .safetensors file beside its config.json. ignored: tensors that this model does not use.
    """

    format = "safetensors"

    def __init__(self, path: Path, *, allow_unknown: bool = False) -> None:
        self.path = path
        folder = path if path.is_dir() else path.parent
        config = read_config(confined_file(folder, CONFIG), allow_unknown=allow_unknown)
        self._files = open_files(path)
        try:
            named = canonical_names(self._files.tensors, lambda names: _missing(config, names))
            self._sources = {**named.foreign, **named.canonical}
            self.config = config_as_stored(config, named.canonical)
            self.ignored: list[str] = []
            self._places = self._check(allow_unknown)
        except BaseException:
            self.close()
            raise

    def _check(self, allow_unknown: bool) -> dict[str, Place]:
        config = self.config
        places = places_of(config, self._sources)
        shapes = {name: place.shape for name, place in places.items()}
        for name, other in shared_weights(config).items():
            if name not in places and other in places:
                places[name], shapes[name] = places[other], shapes[other]
        if config.tie_word_embeddings and _HEAD in places:
            if _EMBEDDING in places:
                self._check_tied(places[_HEAD], places[_EMBEDDING])
            else:  # safetensors keeps only one name of shared memory, and that may be the head's
                places[_EMBEDDING], shapes[_EMBEDDING] = places[_HEAD], shapes[_HEAD]
            del shapes[_HEAD]
        _check_absent(self.path, config, shapes, self._files)
        self.ignored = check_contents(
            config,
            shapes,
            where=str(self.path),
            file_of=lambda name: str(places[name].stored.file.path),
            allow_unknown=allow_unknown,
        )
        known = {name: places[name] for name in weight_shapes(config)}
        check_types(config, known, self._sources)
        return known

    def _check_tied(self, head: Place, embedding: Place) -> None:
        """A copy of the embedding as head is harmless; another head would be dropped in silence."""
        if not head.stored.same_values(embedding.stored):
            raise CheckpointError(
                f"{head.stored.file.path}: tensor {_HEAD!r} differs from {_EMBEDDING!r}, but config.json ties them; "
                "set tie_word_embeddings to false there to use it, or remove it"
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
        self._files.close()
        self._sources = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _missing(config: ModelConfig, names: Mapping[str, Stored]) -> int:
    """How many weights of the model are not among these."""
    stored = config_as_stored(config, names)
    try:
        places = places_of(stored, names)
    except CheckpointError:
        return _NOT_THERE
    return sum(name not in places for name in weight_shapes(stored) if name not in shared_weights(stored))


def _check_absent(path: Path, config: ModelConfig, found: Mapping[str, object], files: WeightFiles) -> None:
    """A file that the index names may be absent only while nothing in it is needed."""
    needed = any(name not in found and name not in shared_weights(config) for name in weight_shapes(config))
    if needed and files.absent:
        tensor, file = next(iter(files.absent.items()))
        raise CheckpointError(f"{path / file}: file is missing, with the tensor {tensor!r}; fetch the checkpoint again")
