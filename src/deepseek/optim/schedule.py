"""Learning rates over a run: a pure function of the step."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from deepseek.errors import ConfigError

ScheduleName = Literal["wsd", "cosine", "constant"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The factor on the peak learning rate at each step of `steps`.

    All warm up linearly over `warmup_steps`. wsd (warm-up, stable, decay; arXiv 2405.18392): stays at the peak, then
    falls over the last `decay_fraction` of the steps by 1 - sqrt, to `final_fraction` of the peak. cosine: falls from
    the warm-up on. constant: never falls.
    """

    steps: int
    name: ScheduleName = "wsd"
    warmup_steps: int = 0
    decay_fraction: float = 0.2
    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in get_args(ScheduleName):
            raise ConfigError(f"schedule name must be one of {', '.join(get_args(ScheduleName))}, not {self.name!r}")
        if self.steps < 1:
            raise ConfigError(f"schedule steps must be above 0, not {self.steps}")
        if not 0 <= self.warmup_steps <= self.steps:
            raise ConfigError(f"warmup_steps must be between 0 and the {self.steps} steps, not {self.warmup_steps}")
        for name in ("decay_fraction", "final_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be between 0 and 1, not {getattr(self, name)}")

    def factor(self, step: int) -> float:
        """For step 0, 1 ...; the first step of a warm-up already learns, the last step of a run still does."""
        return (step + 1) / self.warmup_steps if step < self.warmup_steps else self.fall(step)

    def fall(self, step: int) -> float:
        """The same without the warm-up: 1 until the rate falls."""
        if self.name == "constant":
            return 1.0
        decay = self.steps - self.warmup_steps
        if self.name == "wsd":
            decay = min(decay, round(self.steps * self.decay_fraction))
        passed = step - (self.steps - decay)
        if passed < 0 or decay == 0:
            return 1.0
        progress = min(1.0, passed / decay)
        falling = 1 - math.sqrt(progress) if self.name == "wsd" else (1 + math.cos(math.pi * progress)) / 2
        return self.final_fraction + (1 - self.final_fraction) * falling
