"""Clipping by the global norm of all gradients."""

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def gradient_norm(parameters: Iterable[Tensor]) -> float:
    """The Euclidean norm of all gradients together, added up in float32. nan or inf if any gradient is not finite."""
    norms = [
        torch.linalg.vector_norm(parameter.grad, dtype=torch.float32)
        for parameter in parameters
        if parameter.grad is not None
    ]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0


def clip_factor(norm: float, limit: float | None) -> float:
    """What to multiply gradients with so that their norm is at most `limit`; None: no limit."""
    return 1.0 if limit is None or norm <= limit else limit / norm
