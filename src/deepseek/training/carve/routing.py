"""A router fitted to experts: from what enters the layer, how much each expert would add to what leaves it.

Shape suffixes: n tokens, m model size, e experts, i neurons in the order of their experts.
"""

import torch
from torch import Tensor

_RIDGE = 1e-3  # of the mean variance of an input


def expert_sizes(strength_ni: Tensor, experts: int) -> Tensor:
    """(n, e): the square root of each expert's energy, of the strengths of its neurons alone."""
    return torch.unflatten(strength_ni.square(), 1, (experts, -1)).sum(dim=-1).sqrt()


def fit_router(x_nm: Tensor, size_ne: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (e, m) and biases (e): ridge regression of each expert's (or neuron's) size on the normalised input."""
    x_mean_m, size_mean_e = x_nm.mean(dim=0), size_ne.mean(dim=0)
    centred_nm = x_nm - x_mean_m
    gram_mm = centred_nm.T @ centred_nm / len(x_nm)
    gram_mm.diagonal().add_(_RIDGE * gram_mm.diagonal().mean() + 1e-12)
    weight_em = torch.linalg.solve(gram_mm, centred_nm.T @ (size_ne - size_mean_e) / len(x_nm)).T
    return weight_em.contiguous(), size_mean_e - weight_em @ x_mean_m


def choose(logits_ne: Tensor, active: int) -> Tensor:
    """(n, e), 1 for the `active` largest of each token."""
    return torch.zeros_like(logits_ne).scatter(-1, logits_ne.topk(active, dim=-1).indices, 1.0)
