"""Opening a checkpoint, whatever its format."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from deepseek.checkpoint.tensor import RawTensor
from deepseek.config import ModelConfig
from deepseek.errors import CheckpointError


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

    allow_unknown: pass over unknown keys of the configuration and tensors that the architecture does not have.
    Raises CheckpointError or ConfigError naming file, tensor or key.
    """
    path = Path(path)
    if path.suffix == ".gguf" and path.is_file():
        return _open_gguf(path, allow_unknown)
    raise CheckpointError(f"{path}: not yet")


def _open_gguf(path: Path, allow_unknown: bool) -> Checkpoint:
    from deepseek.checkpoint.gguf.checkpoint import GgufCheckpoint

    return GgufCheckpoint(path, allow_unknown=allow_unknown)
