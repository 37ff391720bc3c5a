"""Loss scaling for float16 (arXiv 1710.03740): gradients too small for it are made larger, and divided again later."""

from deepseek.errors import ConfigError

LARGEST, SMALLEST = 2.0**24, 2.0**-14


class LossScale:
    """The factor on the loss. Fixed, or dynamic: halved when a gradient overflowed, doubled after a quiet interval.

    factor: the fixed one; None: dynamic, from 2^16. interval: steps without overflow before it is doubled.
    """

    def __init__(self, factor: float | None = None, *, interval: int = 2000) -> None:
        if factor is not None and not 0 < factor < float("inf"):
            raise ConfigError(f"loss_scale must be above 0, or None for a dynamic one, not {factor}")
        self.is_dynamic = factor is None
        self.factor = 2.0**16 if factor is None else float(factor)
        self._interval = interval
        self._quiet = 0

    def update(self, *, finite: bool) -> None:
        """After each step: whether its gradients were finite."""
        if not self.is_dynamic:
            return
        self._quiet = self._quiet + 1 if finite else 0
        if not finite:
            self.factor = max(SMALLEST, self.factor / 2)
        elif self._quiet == self._interval:
            self.factor, self._quiet = min(LARGEST, self.factor * 2), 0

    @property
    def is_exhausted(self) -> bool:
        """No smaller factor is left: what overflows is not too large a loss."""
        return not self.is_dynamic or self.factor <= SMALLEST

    def state_dict(self) -> dict[str, float]:
        return {"factor": self.factor, "quiet": self._quiet}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.factor, self._quiet = float(state["factor"]), int(state["quiet"])
