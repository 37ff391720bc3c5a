"""A name to a model."""

import os
from typing import TypeVar

import torch

from deepseek.config import ModelConfig
from deepseek.errors import ConfigError
from deepseek.models.decoder import Model
from deepseek.models.device import choose_device, choose_dtype
from deepseek.models.initialise import INITIALIZER_STD, initialise
from deepseek.progress import Report, silent

T = TypeVar("T")


def _either(name: str, value: str | T, other_name: str, other: str | T | None) -> str | T:
    """Two names of one setting, whose default is "auto". Raises ConfigError where both are given and differ."""
    if other is None or other == value:
        return value
    if value != "auto":
        raise ConfigError(f"{name} is {value!r} and {other_name} {other!r}, two names of one setting: give one of them")
    if isinstance(other, dict):
        raise ConfigError(f"{other_name} must be one device, not a map: a model lies on one device here")
    return other


class AutoModel:
    """Finds and builds a model: `from_pretrained` with its weights, `from_config` with random ones."""

    @staticmethod
    def from_pretrained(
        name: str | os.PathLike[str],
        *,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "auto",
        revision: str | None = None,
        report: Report = silent,
        allow_unknown_keys: bool = False,
        torch_dtype: str | torch.dtype | None = None,
        device_map: str | torch.device | None = None,
    ) -> Model:
        """Load a folder, a file, a hub name or `pypi:` name, ready for inference.

        dtype: "float32", "bfloat16", "float16" (or "fp32", "bf16", "fp16"), the torch type, or "auto" (see
        `choose_dtype`). device: "cpu", "cuda:0" ..., or "auto": the accelerator if there is one. revision: of a hub
        repository. torch_dtype, device_map: what Transformers calls dtype and device.
        allow_unknown_keys: pass over keys of config.json that this version does not know, and weights beside it.
        Raises HubError, CheckpointError or ConfigError.
        """
        from deepseek import hub
        from deepseek.checkpoint.checkpoint import open_checkpoint
        from deepseek.models.loading import load

        place = choose_device(_either("device", device, "device_map", device_map))
        chosen = choose_dtype(_either("dtype", dtype, "torch_dtype", torch_dtype), place)
        path = hub.resolve(name, revision=revision, report=report).path
        with open_checkpoint(path, allow_unknown=allow_unknown_keys) as checkpoint:
            return load(checkpoint, dtype=chosen, device=place, report=report)

    @staticmethod
    def from_config(
        config: ModelConfig,
        *,
        dtype: str | torch.dtype = "float32",
        device: str | torch.device = "cpu",
        seed: int | None = None,
        std: float = INITIALIZER_STD,
    ) -> Model:
        """A new model, ready for training; see `initialise`. The same seed gives the same weights on one device."""
        place = choose_device(device)
        with torch.device("meta"):
            model = Model(config)
        model.to(choose_dtype(dtype, place)).to_empty(device=place)
        generator = torch.Generator(place)
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        initialise(model, std=std, generator=generator)
        return model
