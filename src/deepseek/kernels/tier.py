"""Which instructions this process compiles for. Fixed when first asked, as Numba's target is."""

import platform
from typing import Literal

import llvmlite.binding as llvm
from numba.core import codegen, config

Tier = Literal["avx512", "avx2", "generic"]


def features() -> frozenset[str]:
    """The processor features that Numba compiles for; NUMBA_CPU_FEATURES replaces those of the machine."""
    chosen = config.CPU_FEATURES
    if chosen is None:
        chosen = codegen.get_host_cpu_features()
    return frozenset(name[1:] for name in chosen.split(",") if name.startswith("+"))


def cpu_name() -> str:
    return config.CPU_NAME or llvm.get_host_cpu_name()


def _tier() -> Tier:
    have = features()
    if {"avx512f", "avx512bw", "avx512vl", "avx512vnni"} <= have:
        return "avx512"
    if {"avx2", "fma", "f16c"} <= have:
        return "avx2"
    return "generic"


TIER: Tier = _tier()
_IS_ARM64 = platform.machine().lower() in ("arm64", "aarch64")
# Whether the processor converts halves. Elsewhere LLVM would call functions that Numba does not bring along.
CONVERTS_HALVES = _IS_ARM64 or {"avx", "f16c"} <= features() or TIER != "generic"
