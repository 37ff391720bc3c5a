"""Opening a checkpoint, whatever its format."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from deepseek.checkpoint.hf_folder import INDEX, SafetensorsCheckpoint
from deepseek.checkpoint.staged import finish_interrupted_save
from deepseek.checkpoint.tensor import RawTensor
from deepseek.config import ModelConfig
from deepseek.errors import CheckpointError

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


class Checkpoint(Protocol):
    """What every format offers. Weights are named, shaped and oriented as `families.weights` says.

    path: what was opened. format: "safetensors" or "gguf". config: as stored, see `contents.config_as_stored`.
    """

    @property
    def path(self) -> Path: ...

    @property
    def format(self) -> str: ...

    @property
    def config(self) -> ModelConfig: ...

    def names(self) -> Sequence[str]:
        """Every weight of `config`, in its order."""
        ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> str:
        """That of `raw(name)`, without reading the weight."""
        ...

    def raw(self, name: str) -> RawTensor:
        """The weight, mapped lazily: nothing is read before its bytes are. Raises CheckpointError if it is damaged."""
        ...

    def close(self) -> None:
        """Let the files go. Tensors still held keep their file mapped until they are dropped."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_checkpoint(path: Path | str, *, allow_unknown: bool = False) -> Checkpoint:
    """Open a folder in the Hugging Face layout, a .safetensors file, a .gguf file or a folder that holds one.

    Every name, shape and type is checked; no weights are read. In a folder with both formats safetensors wins. A save
    into the folder that was cut short after it was complete is finished first.
    allow_unknown: pass over unknown keys of the configuration and tensors that the architecture does not have.
    Raises CheckpointError or ConfigError naming file, tensor or key.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder")
    if path.is_dir():
        return _open_folder(path, allow_unknown)
    if path.suffix == ".gguf":
        return _open_gguf(path, allow_unknown)
    if path.suffix in _PICKLES:
        raise CheckpointError(_pickle_message(path))
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: not a checkpoint; give a folder, a .safetensors or a .gguf file")
    whole = path.parent if _is_shard(path) else path
    return SafetensorsCheckpoint(whole, allow_unknown=allow_unknown)


def _open_folder(folder: Path, allow_unknown: bool) -> Checkpoint:
    finish_interrupted_save(folder)
    names = sorted(entry.name for entry in folder.iterdir())
    if INDEX in names or any(name.endswith(".safetensors") for name in names):
        return SafetensorsCheckpoint(folder, allow_unknown=allow_unknown)
    ggufs = [name for name in names if name.endswith(".gguf") and _is_first_part(name)]
    if len(ggufs) == 1:
        return _open_gguf(folder / ggufs[0], allow_unknown)
    if ggufs:
        raise CheckpointError(f"{folder}: {len(ggufs)} GGUF models; give the path of one: {', '.join(ggufs[:8])}")
    if pickles := [name for name in names if name.endswith(_PICKLES)]:
        raise CheckpointError(_pickle_message(folder / pickles[0]))
    raise CheckpointError(f"{folder}: no checkpoint here; expected model.safetensors, {INDEX} or a .gguf file")


def _pickle_message(path: Path) -> str:
    return (
        f"{path}: pickle files can run code when they are loaded and are never opened; fetch the model as safetensors, "
        "or convert it elsewhere (load it in an isolated machine and save it with safetensors)"
    )


def _is_first_part(name: str) -> bool:
    """A split GGUF is opened by its first part."""
    split = _SPLIT.fullmatch(name)
    return split is None or int(split[2]) == 1


def _is_shard(path: Path) -> bool:
    return (path.parent / INDEX).exists() and re.fullmatch(r".+-\d+-of-\d+\.safetensors", path.name) is not None


def _open_gguf(path: Path, allow_unknown: bool) -> Checkpoint:
    from deepseek.checkpoint.gguf.checkpoint import GgufCheckpoint

    return GgufCheckpoint(path, allow_unknown=allow_unknown)
