"""The device that a run trains on: which it is, and the most of its memory that was used."""

import resource

import torch

from deepseek.errors import ConfigError


def training_device(name: str | None) -> torch.device:
    """None: a CUDA device where there is one, else the CPU. Raises ConfigError for one that is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # PyTorch built without CUDA asserts
        reason = str(error).splitlines()[0]
        raise ConfigError(f"training.device: {name!r} cannot be used ({reason}); leave it out, or say cpu") from None
    return device


def peak_memory(device: torch.device) -> int:
    """Bytes: of the process on the CPU, of PyTorch's tensors on a GPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
