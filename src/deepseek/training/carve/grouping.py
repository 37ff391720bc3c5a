"""Which neurons belong together: the ones that nearly always matter are shared, the rest go into groups of one size.

Neurons that fire together help only as far as a router can tell so from the layer's input: they are clustered by the
part of their strength that it can tell, and then moved to the expert that the fitted router opens when they matter.

Shape suffixes: n tokens, m model size, i neurons of the dense layer, e experts, f features.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepseek.training.carve.routing import choose, expert_sizes, fit_router

_STRONGEST = 4  # one neuron in so many counts as firing at a token
_FEATURES = 2048  # tokens that a neuron's pattern is made of
_ROUNDS = 12
_REFINEMENTS = 2  # more of them fit the calibration text: measured, decision 019


class Grouping(NamedTuple):
    """order_i: the dense layer's neurons, shared ones first, then expert after expert of `width`."""

    order_i: Tensor
    shared: int
    width: int

    @property
    def experts(self) -> int:
        return (len(self.order_i) - self.shared) // self.width


def group_neurons(
    strength_ni: Tensor, x_nm: Tensor, *, experts: int, shared: int, width: int, active: int, seed: int
) -> Grouping:
    """strength: of each neuron's contribution at each token, |activation| times the length of its output column.

    x: what enters the layer. shared: neurons that every token passes through, at first those most often among the
    strongest quarter (CMoE, arXiv 2502.04416). active: experts that a token will go through.
    """
    shared_i = _firing_rate(strength_ni).topk(shared).indices
    routed_i = _others(shared_i, strength_ni.shape[1])
    pattern_if = _predictable(strength_ni, x_nm).T[routed_i]
    grouping = _ordered(shared_i, routed_i, balanced_clusters(pattern_if, experts, width, seed=seed), width)
    for _ in range(_REFINEMENTS if active < experts else 0):
        grouping = _refined(grouping, strength_ni, x_nm, active)
    return grouping


def _predictable(strength_ni: Tensor, x_nm: Tensor) -> Tensor:
    """(f, i): how far each neuron's strength at a token is from its mean, as far as that is linear in x."""
    weight_im, _ = fit_router(x_nm, strength_ni)
    step = max(1, len(strength_ni) // _FEATURES)
    return (x_nm[::step] - x_nm.mean(dim=0)) @ weight_im.T


def _refined(grouping: Grouping, strength_ni: Tensor, x_nm: Tensor, active: int) -> Grouping:
    """Every neuron goes where most of its energy is let through; those that lose most wherever they go are shared."""
    routed_ni = strength_ni[:, grouping.order_i[grouping.shared :]]
    weight_em, bias_e = fit_router(x_nm, expert_sizes(routed_ni, grouping.experts))
    open_ne = choose(x_nm @ weight_em.T + bias_e, active)
    energy_ni = strength_ni.square()
    kept_ie = energy_ni.T @ open_ne
    shared_i = (energy_ni.sum(dim=0) - kept_ie.amax(dim=1)).topk(grouping.shared).indices
    routed_i = _others(shared_i, len(kept_ie))
    group_i = torch.from_numpy(assign_with_capacity(kept_ie[routed_i].numpy(), grouping.width))
    return _ordered(shared_i, routed_i, group_i, grouping.width)


def _others(shared_i: Tensor, neurons: int) -> Tensor:
    routed = torch.ones(neurons, dtype=torch.bool)
    routed[shared_i] = False
    return routed.nonzero()[:, 0]


def _ordered(shared_i: Tensor, routed_i: Tensor, group_i: Tensor, width: int) -> Grouping:
    return Grouping(torch.cat((shared_i.sort().values, routed_i[group_i.argsort(stable=True)])), len(shared_i), width)


def _firing_rate(strength_ni: Tensor) -> Tensor:
    """How often each neuron is among the strongest quarter of a token's; equal rates are told apart by strength."""
    weakest_n1 = strength_ni.topk(max(1, strength_ni.shape[1] // _STRONGEST), dim=1).values[:, -1:]
    mean_i = strength_ni.mean(dim=0)
    return (strength_ni >= weakest_n1).float().mean(dim=0) + 1e-6 * mean_i / mean_i.max().clamp(min=1e-30)


def balanced_clusters(pattern_if: Tensor, clusters: int, size: int, *, seed: int) -> Tensor:
    """The cluster of each row, every cluster of exactly `size` rows: spherical k-means with a capacity."""
    assert len(pattern_if) == clusters * size, (pattern_if.shape, clusters, size)
    unit_if = pattern_if / pattern_if.norm(dim=1, keepdim=True).clamp(min=1e-12)
    centre_cf = _spread_out(unit_if, clusters, torch.Generator().manual_seed(seed))
    group_i = torch.full((len(unit_if),), -1)
    for _ in range(_ROUNDS):
        before_i = group_i
        group_i = torch.from_numpy(assign_with_capacity((unit_if @ centre_cf.T).numpy(), size))
        if torch.equal(group_i, before_i):
            break
        centre_cf = torch.stack([unit_if[group_i == cluster].sum(dim=0) for cluster in range(clusters)])
        centre_cf /= centre_cf.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return group_i


def _spread_out(unit_if: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """First centres (k-means++): each drawn among the rows, the likelier the farther from those drawn before."""
    chosen = [int(torch.randint(len(unit_if), (1,), generator=generator))]
    far_i = 1 - unit_if @ unit_if[chosen[0]]
    while len(chosen) < clusters:
        chosen.append(int(torch.multinomial(far_i.clamp(min=1e-9).square(), 1, generator=generator)))
        far_i = torch.minimum(far_i, 1 - unit_if @ unit_if[chosen[-1]])
    return unit_if[chosen]


def assign_with_capacity(liking_ic: NDArray[np.float32], size: int) -> NDArray[np.int64]:
    """A cluster for each row, at most `size` rows each, by liking; who would lose most by the second choice goes first.

    Not the optimum, which costs the cube of the rows, but within a percent of it on activation patterns.
    """
    rows, clusters = liking_ic.shape
    group_i, room_c = np.full(rows, -1), np.full(clusters, size)
    waiting = np.arange(rows)
    while len(waiting):
        liking = np.where(room_c > 0, liking_ic[waiting], -np.inf)
        best = liking.argmax(axis=1)
        values = np.sort(liking, axis=1)
        regret = values[:, -1] - values[:, -2] if clusters > 1 else values[:, -1]
        placed = np.zeros(len(waiting), bool)
        for row in np.argsort(-regret, kind="stable"):
            if room_c[best[row]] > 0:
                room_c[best[row]] -= 1
                group_i[waiting[row]] = best[row]
                placed[row] = True
        waiting = waiting[~placed]
    return group_i
