"""A carving kept on disk: a distillation that goes on after a stop does not carve again, which takes many minutes."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepseek.checkpoint.atomic import atomic_file
from deepseek.errors import CheckpointError
from deepseek.models.decoder import Model
from deepseek.models.tensor_files import read_tensors, read_values, write_tensors
from deepseek.progress import Report, silent
from deepseek.training.carve.carving import CarveConfig, Carving, carve

FILE = "carved.safetensors"


def carve_once(
    model: Model, windows_wt: Tensor, config: CarveConfig, folder: Path, *, report: Report = silent
) -> Carving:
    """What `carve` gives, from `folder` where the same was carved before; other carvings there are replaced."""
    path, settings = folder / FILE, _settings(model, windows_wt, config)
    if path.exists() and _settings_of(path) == settings:
        carving = Carving.unfitted(model, config)
        read_tensors(path, carving.model.state_dict())
        return carving
    carving = carve(model, windows_wt, config, report=report)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        write_tensors(file, carving.model.state_dict(), settings)
    return carving


def _settings_of(path: Path) -> Any:
    """None for a damaged file: it is then carved anew."""
    try:
        return read_values(path)
    except CheckpointError:
        return None


def _settings(model: Model, windows_wt: Tensor, config: CarveConfig) -> dict[str, Any]:
    """All that a carving depends on, the model and the text by their hashes."""
    weights = hashlib.sha256()
    for tensor in model.state_dict().values():
        weights.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    text = hashlib.sha256(windows_wt.numpy().tobytes()).hexdigest()
    return asdict(config) | {"model": weights.hexdigest(), "text": text}
