"""The output columns of the neurons that are kept, refitted so that they also stand in for those that are dropped.

Shape suffixes: n tokens, m model size, i neurons.
"""

import torch
from torch import Tensor

RIDGE = 1e-2  # of the mean energy of a neuron: how firmly a column is held where the text says little


def refit_down(down_mi: Tensor, masked_ni: Tensor, wanted_nm: Tensor) -> Tensor:
    """The least-squares columns (m, i) for `masked @ down.T` to give `wanted`, held towards what they were.

    masked: activations with those of dropped experts at zero. What a dropped expert gives on average, and whatever of
    it can be told from the neurons that stay, moves into these.
    """
    gram_ii = masked_ni.T @ masked_ni
    gram_ii.diagonal().add_(RIDGE * gram_ii.diagonal().mean() + 1e-12)
    missing_im = masked_ni.T @ (wanted_nm - masked_ni @ down_mi.T)
    return torch.add(down_mi, torch.linalg.solve(gram_ii, missing_im).T)
