"""A name to a model."""

import os

import torch

from deepseek.config import ModelConfig
from deepseek.errors import ConfigError
from deepseek.models.decoder import Model
from deepseek.models.initialise import INITIALIZER_STD, initialise
from deepseek.progress import Report, silent

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
    ) -> Model:
        """Load a folder, a file, a hub name or `pypi:` name, ready for inference.

        dtype: "float32", "bfloat16", "float16", the torch type, or "auto" (see `choose_dtype`). device: "cpu",
        "cuda:0" ..., or "auto": the accelerator if there is one. revision: of a hub repository.
        allow_unknown_keys: pass over keys of config.json that this version does not know, and weights beside it.
        Raises HubError, CheckpointError or ConfigError.
        """
        from deepseek import hub
        from deepseek.checkpoint.checkpoint import open_checkpoint
        from deepseek.models.loading import load

        place = choose_device(device)
        chosen = choose_dtype(dtype, place)
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


def choose_device(device: str | torch.device) -> torch.device:
    """Raises ConfigError for a device that is unknown or not in this machine."""
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if accelerator is None else accelerator
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"device {str(device)!r} cannot be used here ({str(error).splitlines()[0]}); use 'cpu' or 'auto', or "
            "install the PyTorch build for that device"
        ) from None
    return place


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """auto: bfloat16, but float32 on a CPU without bfloat16 instructions, which would have to imitate them.

    bfloat16 takes half the memory and reads prompts faster (benchmarks/reference.py measures both sides in it).
    Raises ConfigError for another name or type.
    """
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" and not _cpu_has_bfloat16() else torch.bfloat16
    chosen = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in _DTYPES.values():
        raise ConfigError(f"dtype must be auto, {', '.join(_DTYPES)} or such a torch type, not {dtype!r}")
    return chosen


def _cpu_has_bfloat16() -> bool:
    """PyTorch has no public name for this; where it has none at all, the answer is no."""
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return asked is not None and bool(asked())
