"""Filling a model from a checkpoint, tensor by tensor: memory holds the model and one tensor."""

import numpy as np
import torch
from torch import Tensor

from deepseek.checkpoint.checkpoint import Checkpoint
from deepseek.checkpoint.decode import to_float32
from deepseek.checkpoint.tensor import RawTensor
from deepseek.errors import CheckpointError
from deepseek.models.decoder import Model
from deepseek.models.weights import canonical_tensors, shared_with
from deepseek.progress import Report, silent

_TAGS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def load(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device, report: Report = silent) -> Model:
    """The model of a checkpoint. Correction biases stay float32. Raises CheckpointError naming the tensor.

    Nothing of the checkpoint is referred to afterwards: it may be closed, and the weights may be trained.
    """
    with torch.device("meta"):
        model = Model(checkpoint.config)
    model.to(dtype).to_empty(device=device)
    targets = canonical_tensors(model)
    names = checkpoint.names()
    for done, name in enumerate(names, start=1):
        _take(model, checkpoint, targets, name)
        report("loading weights", done, len(names), "tensors")
    return model.eval()


def _take(model: Model, checkpoint: Checkpoint, targets: dict[str, Tensor], name: str) -> None:
    raw = checkpoint.raw(name)
    target = targets[name]
    if raw.shape != tuple(target.shape):
        raise CheckpointError(
            f"{checkpoint.path}: tensor {name!r} has shape {list(raw.shape)}, the model needs {list(target.shape)}"
        )
    if original := shared_with(model, name):
        if not _equal(raw, checkpoint.raw(original)):
            raise CheckpointError(
                f"{checkpoint.path}: tensor {name!r} differs from {original!r}, but this version's MTP layers "
                "share the model's (V3, section 2.2); remove the MTP layers (num_nextn_predict_layers 0)"
            )
        return
    fill(target, raw)
    if not _is_finite(target):
        raise CheckpointError(
            f"{checkpoint.path}: tensor {name!r} holds values that are not finite in {target.dtype}; the file is "
            "damaged (fetch it again) or needs a wider dtype (float32)"
        )


def fill(target: Tensor, raw: RawTensor) -> None:
    """Copy a raw tensor into `target` (contiguous, of its shape), converted to its type; bytes as they are if equal."""
    if raw.dtype == _TAGS.get(target.dtype):
        whole = target if target.device.type == "cpu" else torch.empty_like(target, device="cpu")
        whole.flatten().view(torch.uint8).numpy()[...] = raw.data
        if whole is not target:
            target.copy_(whole)
        return
    values = to_float32(raw)
    target.copy_(torch.from_numpy(values if values.flags.writeable else values.copy()))


def _equal(first: RawTensor, second: RawTensor) -> bool:
    if first.dtype == second.dtype and first.scale is None and second.scale is None:
        return np.array_equal(first.data, second.data)
    return np.array_equal(to_float32(first), to_float32(second))


def _is_finite(tensor: Tensor) -> bool:
    """A sum carries every NaN and infinity along and needs no memory; only if it is not finite, look closely."""
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())
