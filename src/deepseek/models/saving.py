"""Writing a model in the Hugging Face layout, which Transformers and every other tool load."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from deepseek.checkpoint.save import MAX_SHARD_BYTES, save_checkpoint
from deepseek.checkpoint.tensor import RawTensor
from deepseek.errors import CheckpointError
from deepseek.models.decoder import Model
from deepseek.models.weights import canonical_tensors
from deepseek.progress import Report, silent

if TYPE_CHECKING:
    from deepseek.tokenizer.tokenizer import Tokenizer

_TAGS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def save(
    model: Model,
    folder: Path,
    tokenizer: "Tokenizer | None" = None,
    *,
    max_shard_bytes: int | None = None,
    report: Report = silent,
) -> None:
    """Write config.json, safetensors (one name an expert) and, if given, the tokenizer's files.

    An earlier checkpoint in the folder stays as it was until the new one is complete. Raises CheckpointError.
    """
    tensors = canonical_tensors(model)
    save_checkpoint(
        folder,
        model.config,
        _raw_tensors(tensors),
        max_shard_bytes=max_shard_bytes or MAX_SHARD_BYTES,
        total_bytes=sum(tensor.nbytes for tensor in tensors.values()),
        report=report,
    )
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _raw_tensors(tensors: dict[str, Tensor]) -> Iterator[tuple[str, RawTensor]]:
    for name, tensor in tensors.items():
        yield name, raw_tensor(name, tensor)


def raw_tensor(name: str, tensor: Tensor) -> RawTensor:
    """The bytes of a tensor, shared where it lies contiguous in the CPU's memory."""
    if tensor.dtype not in _TAGS:
        raise CheckpointError(f"cannot save tensor {name!r}: type {tensor.dtype}; convert the model with .to() first")
    data = tensor.cpu().contiguous().flatten().view(torch.uint8).numpy()
    return RawTensor(dtype=_TAGS[tensor.dtype], shape=tuple(tensor.shape), data=data)
