"""What one router did in one step: the tally while it runs, and the report after it."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerLoad:
    """The routing of one layer over all micro-batches of a step.

    load_e: each expert's share of the assignments of tokens to experts, 1 in sum, before any was dropped.
    max_violation: the largest load over the mean load, less 1 (MaxVio of arXiv 2408.15664); 0 when even.
    entropy: of the load, over the logarithm of the number of experts; 1 when even.
    utilisation: mean load over largest load; 1 when even.
    dropped: assignments beyond an expert's capacity. capacity: places for assignments over assignments; None: dropless.
    confidence: mean over tokens of the share that the chosen experts hold of all its scores.
    balance_loss, router_z: losses as added to the loss, strengths included, and the z-loss by itself; means over
    micro-batches. router_z is 0 unless it is part of the loss.
    """

    layer: int
    load_e: tuple[float, ...]
    max_violation: float
    entropy: float
    utilisation: float
    dropped: int
    capacity: float | None
    confidence: float
    balance_loss: float
    router_z: float


class Tally:
    """Sums of one router over the micro-batches of a step, on the router's device so that nothing waits for it."""

    def __init__(self, experts: int, device: torch.device) -> None:
        self.counts_e = torch.zeros(experts, dtype=torch.int64, device=device)
        self.dropped = torch.zeros((), dtype=torch.int64, device=device)
        self.needed = torch.zeros((), device=device)
        self.confidence, self.balance_loss, self.router_z = (torch.zeros((), device=device) for _ in range(3))
        self.tokens = self.micro_batches = self.places = 0

    def report(self, layer: int, *, dropless: bool) -> LayerLoad:
        """At least one token must have been counted."""
        counts = self.counts_e.tolist()
        total = sum(counts)
        load = [count / total for count in counts]
        mean, largest = 1 / len(load), max(load)
        nats = -sum(share * math.log(share) for share in load if share)
        return LayerLoad(
            layer=layer,
            load_e=tuple(load),
            max_violation=largest / mean - 1,
            entropy=nats / math.log(len(load)) if len(load) > 1 else 1.0,
            utilisation=mean / largest,
            dropped=int(self.dropped),
            capacity=None if dropless else self.places / total,
            confidence=float(self.confidence) / self.tokens,
            balance_loss=float(self.balance_loss) / self.micro_batches,
            router_z=float(self.router_z) / self.micro_batches,
        )
