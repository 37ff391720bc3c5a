"""Opening a checkpoint, whatever its format."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from deepseek.checkpoint.file_kinds import GGUF_MAGIC, describe, first_bytes, is_safetensors
from deepseek.checkpoint.hf_folder import CONFIG, SafetensorsCheckpoint
from deepseek.checkpoint.staged import finish_interrupted_save
from deepseek.checkpoint.tensor import RawTensor
from deepseek.checkpoint.weight_files import INDEX, is_shard
from deepseek.config import ModelConfig
from deepseek.errors import CheckpointError

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


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
    """Open a folder in the Hugging Face layout, a .safetensors file, a GGUF file or a folder that holds one.

    What a file is its first bytes say, not its name. Every name, shape and type is checked; no weights are read. In a
    folder with both formats safetensors wins. A save into the folder that was cut short after it was complete is
    finished first.
    allow_unknown: pass over keys of the configuration and tensors within the model that might change what it computes.
    Raises CheckpointError or ConfigError naming file, tensor or key.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder")
    if path.is_dir():
        return _open_folder(path, allow_unknown)
    if not path.is_file():
        raise CheckpointError(f"{path}: not a regular file")
    start = first_bytes(path)
    if start.startswith(GGUF_MAGIC):
        return _open_gguf(path, allow_unknown)
    if path.suffix == ".safetensors" or is_safetensors(start):
        return SafetensorsCheckpoint(path.parent if is_shard(path) else path, allow_unknown=allow_unknown)
    if path.name.endswith(".index.json") or path.name == CONFIG:
        return _open_folder(path.parent, allow_unknown)
    raise CheckpointError(_no_model_message(path, start))


def _open_folder(folder: Path, allow_unknown: bool) -> Checkpoint:
    from deepseek.checkpoint.gguf.folder import gguf_of

    finish_interrupted_save(folder)
    names = sorted(entry.name for entry in folder.iterdir())
    if INDEX in names or any(name.endswith(".safetensors") for name in names):
        return SafetensorsCheckpoint(folder, allow_unknown=allow_unknown)
    if (gguf := gguf_of(folder)) is not None:
        return _open_gguf(gguf, allow_unknown)
    if pickles := [name for name in names if name.endswith(_PICKLES)]:
        raise CheckpointError(_pickle_message(folder / pickles[0]))
    raise CheckpointError(f"{folder}: no checkpoint here; expected model.safetensors, {INDEX} or a .gguf file")


def _no_model_message(path: Path, start: bytes) -> str:
    looks = describe(start)
    if path.suffix in _PICKLES and (looks is None or "pickle" in looks):
        return _pickle_message(path)
    if looks is None and not start:
        looks = "an empty file: the download failed; fetch it again"
    if looks is None:
        return f"{path}: not a checkpoint; give a folder, a .safetensors or a .gguf file"
    return f"{path}: not a checkpoint but {looks}"


def _pickle_message(path: Path) -> str:
    return (
        f"{path}: pickle files can run code when they are loaded and are never opened; fetch the model as safetensors, "
        "or convert it elsewhere (load it in an isolated machine and save it with safetensors)"
    )


def _open_gguf(path: Path, allow_unknown: bool) -> Checkpoint:
    from deepseek.checkpoint.gguf.checkpoint import GgufCheckpoint

    return GgufCheckpoint(path, allow_unknown=allow_unknown)
