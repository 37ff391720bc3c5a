"""A dense model into a mixture of experts: its feed-forward neurons grouped, a router fitted, a short distillation.

    text -> activations -> grouping -> router -> compensation -> (distillation) -> an ordinary checkpoint

`carve` splits, `upcycle` copies. Why it is done in this way, and what it costs, is in docs/decisions/019-carving.md.
"""

from deepseek.training.carve.carving import CarveConfig, Carving, carve
from deepseek.training.carve.upcycle import upcycle

__all__ = ["CarveConfig", "Carving", "carve", "upcycle"]
