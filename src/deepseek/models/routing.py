"""What a router decides, and the order in which the experts work through it.

Shape suffixes: n tokens (batch and sequence together), e experts, k chosen experts, a assignments of a token to an
expert (n * k), p places: rows of a buffer in which the tokens of one expert stand together.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

LEAST_GRANULES = 16  # of an expert with the mean number of tokens: its last one is half empty, a loss of 3 %
LARGEST_GRANULE = 32
FULLEST_EVEN = 32  # tokens of an expert; beyond it rows to spare cost more than they save (256 to 4,096 experts)


class Routing(NamedTuple):
    """Where each token goes. indices_nk: experts, best first. weights_nk: their float32 weights, scaled.

    logits_ne, scores_ne: of every expert before bias, groups and choice, float32 (what balance losses read).
    capacity_e: how many tokens each expert takes at most, the first ones, at least 1; the others go without it. None:
    all of them.
    """

    indices_nk: Tensor
    weights_nk: Tensor
    scores_ne: Tensor
    logits_ne: Tensor
    capacity_e: Tensor | None = None


Layout = Literal["auto", "ragged", "even"]


class Dispatch(NamedTuple):
    """Assignments sorted by expert, tokens ascending within one.

    ragged: an expert has a whole number of granules of places. even: all have as many places as the fullest needs.

    token_p: whose row stands at a place; places to spare repeat token 0. weight_p: of the assignment there, 0 if to
    spare. place_nk: where an assignment stands. kept_nk: 1, or 0 for assignments beyond their expert's capacity, which
    stand nowhere; None: all are kept. ends_e: int32, the end of each expert's places; None: even.
    """

    token_p: Tensor
    weight_p: Tensor
    place_nk: Tensor
    kept_nk: Tensor | None
    ends_e: Tensor | None
    experts: int


@torch.no_grad()
def dispatch(routing: Routing, layout: Layout = "auto") -> Dispatch:
    """Sort the assignments once, for all products forward and backward.

    Granules make sizes of matrices repeat from step to step: oneDNN compiles a kernel for every new size, which takes
    longer than the product. On a GPU the products want them for alignment. auto: even for many experts of few tokens,
    of which one batched product takes less time than thousands of small ones.
    """
    (tokens, k), experts = routing.indices_nk.shape, routing.scores_ne.shape[1]
    expert_a = routing.indices_nk.flatten()
    order_a = expert_a.argsort(stable=True)
    counts_e = expert_a.bincount(minlength=experts)
    filled_e = counts_e if routing.capacity_e is None else torch.minimum(counts_e, routing.capacity_e)
    places_e, total, even = _places(filled_e, tokens * k, layout)
    ends_e = places_e.cumsum(0)
    expert_a = expert_a[order_a]
    rank_a = torch.arange(tokens * k, device=expert_a.device) - (counts_e.cumsum(0) - counts_e)[expert_a]
    place_a = (ends_e - places_e)[expert_a] + rank_a
    kept_nk = None
    if routing.capacity_e is not None:
        kept_a = rank_a < routing.capacity_e[expert_a]
        order_a, place_a = order_a[kept_a], place_a[kept_a]
        kept_nk = torch.zeros_like(routing.weights_nk).flatten().index_fill_(0, order_a, 1.0).view(tokens, k)
    token_p, weight_p = place_a.new_zeros(total), routing.weights_nk.new_zeros(total)
    token_p.index_copy_(0, place_a, order_a // k)
    weight_p.index_copy_(0, place_a, routing.weights_nk.flatten()[order_a])
    place_nk = order_a.new_zeros(tokens * k).index_copy_(0, order_a, place_a).view(tokens, k)
    return Dispatch(token_p, weight_p, place_nk, kept_nk, None if even else ends_e.to(torch.int32), experts)


def _places(filled_e: Tensor, assignments: int, layout: Layout) -> tuple[Tensor, int, bool]:
    """Places of each expert, how many rows hold them all, and whether the layout is even."""
    experts, on_cpu = len(filled_e), filled_e.device.type == "cpu"
    # Only where there is no queue are numbers known without waiting for it.
    if layout == "even" or (layout == "auto" and on_cpu):
        fullest = int(filled_e.max())
        if layout == "even" or (fullest <= FULLEST_EVEN and experts <= assignments):
            return torch.full_like(filled_e, fullest), fullest * experts, True
    granule = _granule(assignments // experts, least=1 if on_cpu else 8)
    places_e = (filled_e + (granule - 1)) // granule * granule
    return places_e, int(places_e.sum()) if on_cpu else assignments + experts * (granule - 1), False


def _granule(mean: int, *, least: int) -> int:
    """The largest power of two of which an expert with `mean` tokens has enough."""
    granule = least
    while granule < LARGEST_GRANULE and 2 * granule * LEAST_GRANULES <= mean:
        granule *= 2
    return granule
