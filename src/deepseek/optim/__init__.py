"""Optimisers: AdamW, Muon, mixed precision with loss scaling, FP8 emulation, schedules and gradient clipping.

Everything here takes PyTorch parameters of any module. What a training step is, and when one is taken, is decided in
`deepseek.training`. Public names are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepseek.optim.adamw import AdamW as AdamW
    from deepseek.optim.mixed_precision import MixedPrecisionOptimizer as MixedPrecisionOptimizer
    from deepseek.optim.muon import Muon as Muon
    from deepseek.optim.schedule import Schedule as Schedule

_HOME_OF = {
    "AdamW": "deepseek.optim.adamw",
    "MixedPrecisionOptimizer": "deepseek.optim.mixed_precision",
    "Muon": "deepseek.optim.muon",
    "Schedule": "deepseek.optim.schedule",
}
__all__ = ["AdamW", "MixedPrecisionOptimizer", "Muon", "Schedule"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'deepseek.optim' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME_OF[name]), name)
