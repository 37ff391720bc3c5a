"""What a router decides, and the order in which the experts work through it.

Shape suffixes: n tokens (batch and sequence together), e experts, k chosen experts, a assignments of a token to an
expert (n * k), p places: rows of a buffer in which the tokens of one expert stand together.
"""

from typing import NamedTuple

import torch
from torch import Tensor

LEAST_GRANULES = 16  # of an expert with the mean number of tokens: its last one is half empty, a loss of 3 %
LARGEST_GRANULE = 32


class Routing(NamedTuple):
    """Where each token goes. indices_nk: experts, best first. weights_nk: their float32 weights, scaled.

    logits_ne, scores_ne: of every expert before bias, groups and choice, float32 (what balance losses read).
    capacity_e: how many tokens each expert takes at most, the first ones; the others go without it. None: all of them.
    """

    indices_nk: Tensor
    weights_nk: Tensor
    scores_ne: Tensor
    logits_ne: Tensor
    capacity_e: Tensor | None = None


class Dispatch(NamedTuple):
    """Assignments sorted by expert, tokens ascending within one. An expert has a whole number of granules of places.

    token_p: whose row stands at a place; places to spare repeat token 0. weight_p: of the assignment there, 0 if to
    spare. place_nk: where an assignment stands. kept_nk: 1, or 0 for assignments beyond their expert's capacity, which
    stand nowhere; None: all are kept. ends_e: int32, the end of each expert's places.
    """

    token_p: Tensor
    weight_p: Tensor
    place_nk: Tensor
    kept_nk: Tensor | None
    ends_e: Tensor


@torch.no_grad()
def dispatch(routing: Routing) -> Dispatch:
    """Sort the assignments once, for all products forward and backward.

    Granules make sizes of matrices repeat from step to step: oneDNN compiles a kernel for every new size, which takes
    longer than the product. On a GPU the products want them for alignment.
    """
    (tokens, k), experts = routing.indices_nk.shape, routing.scores_ne.shape[1]
    on_cpu = routing.indices_nk.device.type == "cpu"
    granule = _granule(tokens * k // experts, least=1 if on_cpu else 8)
    expert_a = routing.indices_nk.flatten()
    order_a = expert_a.argsort(stable=True)
    counts_e = expert_a.bincount(minlength=experts)
    filled_e = counts_e if routing.capacity_e is None else torch.minimum(counts_e, routing.capacity_e)
    places_e = (filled_e + (granule - 1)) // granule * granule
    ends_e = places_e.cumsum(0)
    # The exact number of places is known without waiting only where there is no queue.
    total = int(ends_e[-1]) if on_cpu else tokens * k + experts * (granule - 1)
    expert_of_sorted_a = expert_a[order_a]
    rank_a = torch.arange(tokens * k, device=expert_a.device) - (counts_e.cumsum(0) - counts_e)[expert_of_sorted_a]
    place_of_sorted_a = (ends_e - places_e)[expert_of_sorted_a] + rank_a
    kept_nk = None
    if routing.capacity_e is not None:
        kept_a = rank_a < routing.capacity_e[expert_of_sorted_a]
        kept_nk = torch.zeros_like(routing.weights_nk).flatten()
        kept_nk = kept_nk.index_copy_(0, order_a, kept_a.to(kept_nk.dtype)).view_as(routing.weights_nk)
        order_a, place_of_sorted_a = order_a[kept_a], place_of_sorted_a[kept_a]
    place_a = torch.zeros_like(expert_a).index_copy_(0, order_a, place_of_sorted_a)
    token_p, weight_p = expert_a.new_zeros(total), routing.weights_nk.new_zeros(total)
    token_p.index_copy_(0, place_of_sorted_a, order_a // k)
    weight_p.index_copy_(0, place_of_sorted_a, routing.weights_nk.flatten()[order_a])
    return Dispatch(token_p, weight_p, place_a.view(tokens, k), kept_nk, ends_e.to(torch.int32))


def _granule(mean: int, *, least: int) -> int:
    """The largest power of two of which an expert with `mean` tokens has enough."""
    granule = least
    while granule < LARGEST_GRANULE and 2 * granule * LEAST_GRANULES <= mean:
        granule *= 2
    return granule
