"""What carving and distillation cost, measured on text that neither has seen."""

import math
from typing import Any

import torch
from torch import Tensor

from deepseek.models.decoder import Model
from deepseek.training.carve.distillation import held_out_divergence
from deepseek.training.evaluation import text_loss

USEFUL_CALIBRATION = 24_576  # tokens: the fewest that were measured (docs/carving.md)
USEFUL_DISTILLATION = 100_000  # of fewer tokens little comes, see the curve there


class Quality:
    """Perplexity of each model, and its divergence from the dense one in nats per token, as they become known."""

    def __init__(self, held_out_wt: Tensor) -> None:
        self.held_out_wt = held_out_wt
        self.perplexity: dict[str, float] = {}
        self.divergence: dict[str, float] = {}

    def measure(self, name: str, model: Model, dense: Model | None = None) -> None:
        """dense: without it no divergence is measured. Nothing happens where no text was left to measure on."""
        if not len(self.held_out_wt):
            return
        length = self.held_out_wt.shape[1]
        losses = [
            text_loss(model, window_t.tolist(), length=length - 1, micro_batch_size=1)[0]
            for window_t in self.held_out_wt
        ]
        self.perplexity[name] = math.exp(min(sum(losses) / len(losses), 700.0))
        if dense is not None:
            divergence = held_out_divergence(model, dense, self.held_out_wt, float32=True)
            assert divergence is not None
            self.divergence[name] = max(0.0, divergence)  # rounding may end just below

    def to_dict(self) -> dict[str, Any]:
        return {
            "held_out_tokens": self.held_out_wt.numel(),
            "perplexity": self.perplexity,
            "divergence": self.divergence,
        }

    def __str__(self) -> str:
        if not self.perplexity:
            return "not measured: the text leaves nothing to measure on (10 windows are needed)"
        perplexity = ", ".join(f"{value:.2f} {name}" for name, value in self.perplexity.items())
        divergence = ", ".join(f"{value:.3f} {name}" for name, value in self.divergence.items())
        return f"on {self.held_out_wt.numel():,} held-out tokens: perplexity {perplexity}; divergence {divergence} nats"


def warnings_of(calibration_tokens: int, distilled_tokens: int | None) -> list[str]:
    """What is known to be too little."""
    found = []
    if calibration_tokens < USEFUL_CALIBRATION:
        found.append(
            f"carved on {calibration_tokens:,} tokens only: give more text, {USEFUL_CALIBRATION:,} tokens or more "
            "(about 100 kB)"
        )
    if distilled_tokens is not None and distilled_tokens < USEFUL_DISTILLATION:
        found.append(
            f"distilled on {distilled_tokens:,} tokens only: below about {USEFUL_DISTILLATION:,} little comes of it; "
            "give more --distil-minutes"
        )
    return found


def split_windows(windows_wt: Tensor, held_out: int) -> tuple[Tensor, Tensor]:
    """To carve and distil on, and to measure on."""
    first, last = torch.tensor_split(windows_wt, [len(windows_wt) - held_out])
    return first, last
