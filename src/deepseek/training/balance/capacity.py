"""How many tokens an expert may take from a micro-batch (GShard, arXiv 2006.16668; Switch, arXiv 2101.03961).

Shape suffix: e experts.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from deepseek.errors import ConfigError

CapacityMode = Literal["dropless", "fixed", "dynamic"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CapacityConfig:
    """How many tokens each expert may take in a micro-batch; tokens beyond that go without the expert.

    mode: dropless: every expert takes all tokens that choose it; fixed: factor times the mean number, whatever the
    load; dynamic: factor * mean * (1 + coefficient * load), where load is the expert's recent load over the mean.
    factor: see mode.
    coefficient: at the start; each layer's is learned: when something was dropped it becomes the least with which
    nothing would have been, else it falls towards that.
    release: the share of that fall in each step.
    memory: the share of a new step in the recent load.
    """

    mode: CapacityMode = "dropless"
    factor: float = 1.25
    coefficient: float = 0.5
    release: float = 0.01
    memory: float = 0.1

    def __post_init__(self) -> None:
        if self.mode not in get_args(CapacityMode):
            raise ConfigError(f"capacity mode must be {', '.join(get_args(CapacityMode))}, not {self.mode!r}")
        if not math.isfinite(self.factor) or self.factor <= 0:
            raise ConfigError(f"capacity factor must be a number above 0, not {self.factor!r}")
        if not math.isfinite(self.coefficient) or self.coefficient < 0:
            raise ConfigError(f"capacity coefficient must be a number of at least 0, not {self.coefficient!r}")
        for name in ("release", "memory"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"capacity {name} must be above 0 and at most 1, not {getattr(self, name)!r}")


class Capacity:
    """The capacity of one router's experts and what it has learned. Raises nothing; dropless has none of it."""

    def __init__(self, config: CapacityConfig, experts: int, device: torch.device) -> None:
        self.config = config
        self.coefficient = torch.tensor(config.coefficient, device=device)
        self.load_e = torch.ones(experts, device=device)

    def of(self, assignments: int) -> Tensor | None:
        """Places (e,) int64 in a micro-batch of so many assignments, at least one each. None: no limit."""
        if self.config.mode == "dropless":
            return None
        base = self._base(assignments)
        places_e = torch.full_like(self.load_e, base)
        if self.config.mode == "dynamic":
            places_e = base * (1 + self.coefficient * self.load_e)
        return places_e.ceil().long().clamp(min=1)

    def needed(self, counts_e: Tensor) -> Tensor:
        """The least coefficient with which none of these assignments would have been dropped, at least 0."""
        base = self._base(int(counts_e.sum()))
        return ((counts_e / base - 1) / self.load_e.clamp(min=1e-6)).amax().clamp(min=0)

    def learn(self, needed: Tensor, fractions_e: Tensor) -> None:
        """After a step: the largest `needed` of its micro-batches, and each expert's load over the mean."""
        release = torch.where(needed > self.coefficient, 1.0, self.config.release)
        self.coefficient += release * (needed - self.coefficient)
        self.load_e += self.config.memory * (fractions_e - self.load_e)

    def _base(self, assignments: int) -> float:
        return self.config.factor * assignments / len(self.load_e)
