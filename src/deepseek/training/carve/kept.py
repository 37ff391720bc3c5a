"""A carving kept on disk: a distillation that goes on after a stop does not carve again, which takes many minutes."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from deepseek.models.decoder import Model
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
        carving.model.load_state_dict(load_file(path))
        return carving
    carving = carve(model, windows_wt, config, report=report)
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(carving.model.state_dict(), partial, metadata={"carving": settings})
    os.replace(partial, path)
    return carving


def _settings_of(path: Path) -> Any:
    """None for a damaged file: it is then carved anew."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("carving")
    except SafetensorError:
        return None


def _settings(model: Model, windows_wt: Tensor, config: CarveConfig) -> str:
    """All that a carving depends on, the model and the text by their hashes."""
    weights = hashlib.sha256()
    for tensor in model.state_dict().values():
        weights.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    text = hashlib.sha256(windows_wt.numpy().tobytes()).hexdigest()
    facts: dict[str, Any] = asdict(config) | {"model": weights.hexdigest(), "text": text}
    return json.dumps(facts, sort_keys=True)
