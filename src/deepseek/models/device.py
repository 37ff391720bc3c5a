"""Which device and which type of number, and how much memory was used there."""

import resource

import torch

from deepseek.errors import ConfigError
from deepseek.number_types import choice_of

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
    """auto: see `fast_dtype`.

    bfloat16 takes half the memory and reads prompts faster (benchmarks/reference.py measures both sides in it).
    Raises ConfigError for another name or type; see `number_types` for how names may be spelled.
    """
    if dtype == "auto":
        return fast_dtype(device)
    chosen = choice_of(dtype, _DTYPES.values())
    if chosen not in _DTYPES.values():
        raise ConfigError(f"dtype must be auto, {', '.join(_DTYPES)} or such a torch type, not {dtype!r}")
    return chosen


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16, or float32 where the device multiplies that faster.

    A CPU that has to imitate bfloat16 is not a little slower: 1 against 120 GFLOP/s on two cores with AVX2.
    """
    return torch.float32 if device.type == "cpu" and not _cpu_has_bfloat16() else torch.bfloat16


def _cpu_has_bfloat16() -> bool:
    """PyTorch has no public name for this; where it has none at all, the answer is no."""
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return asked is not None and bool(asked())


def peak_memory(device: torch.device) -> int:
    """The most so far, in bytes: of the process on a CPU, of PyTorch's tensors on a CUDA device."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
