"""Sorting assignments loses, doubles and moves none, whatever the counts; only capacity drops, and the last ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from deepseek.models.experts import Experts
from deepseek.models.routing import Dispatch, Layout, Routing, dispatch
from model_cases import CASES, V3_GROUPS
from test_experts import config_with

CONFIG = config_with(V3_GROUPS)
MODEL, EXPERTS = CASES["v3"].hidden_size, V3_GROUPS.n_routed_experts


@st.composite
def routings(draw: st.DrawFn) -> Routing:
    """Ragged counts, experts without a token, and sometimes a capacity."""
    tokens, k = draw(st.integers(1, 60)), draw(st.integers(1, 4))
    favourites = draw(st.lists(st.integers(0, EXPERTS - 1), min_size=k, unique=True))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    scores = torch.rand(tokens, EXPERTS, generator=generator)
    scores[:, favourites] += draw(st.sampled_from([0.0, 0.5, 1.0]))
    weights, indices = scores.topk(k)
    capacity = None
    if draw(st.booleans()):
        capacity = torch.tensor(draw(st.lists(st.integers(1, 20), min_size=EXPERTS, max_size=EXPERTS)))
    return Routing(indices, weights, scores, scores, capacity)


def expected_places(routing: Routing) -> list[list[tuple[int, int]]]:
    """(token, choice) of each expert, in order of tokens, by the definition."""
    taken: list[list[tuple[int, int]]] = [[] for _ in range(EXPERTS)]
    for token, row in enumerate(routing.indices_nk.tolist()):
        for choice, expert in enumerate(row):
            if routing.capacity_e is None or len(taken[expert]) < routing.capacity_e[expert]:
                taken[expert].append((token, choice))
    return taken


@given(routing=routings(), layout=st.sampled_from(["auto", "ragged", "even"]))
@settings(max_examples=150, deadline=None)
def test_every_assignment_has_its_place(routing: Routing, layout: Layout) -> None:
    order = dispatch(routing, layout)
    start = 0
    stands = set()
    ends = torch.arange(1, EXPERTS + 1) * (len(order.token_p) // EXPERTS) if order.ends_e is None else order.ends_e
    for places, end in zip(expected_places(routing), ends.tolist(), strict=True):
        assert len(places) <= end - start
        for place, (token, choice) in enumerate(places, start=start):
            assert order.token_p[place] == token
            assert order.weight_p[place] == routing.weights_nk[token, choice]
            assert order.place_nk[token, choice] == place
            stands.add((token, choice))
        assert not order.weight_p[start + len(places) : end].any()
        start = end
    assert len(order.token_p) == start
    assert_kept(order, routing, stands)


def assert_kept(order: Dispatch, routing: Routing, stands: set[tuple[int, int]]) -> None:
    tokens, k = routing.indices_nk.shape
    if order.kept_nk is None:
        assert len(stands) == tokens * k
    else:
        assert stands == set(map(tuple, order.kept_nk.nonzero().tolist()))


@given(routing=routings())
@settings(max_examples=60, deadline=None)
def test_experts_equal_the_loop_for_ragged_counts(routing: Routing) -> None:
    experts = Experts(CONFIG)
    generator = torch.Generator().manual_seed(0)
    for weight in experts.parameters():
        nn.init.normal_(weight, std=0.2, generator=generator)
    x = torch.randn(len(routing.indices_nk), MODEL, generator=generator)
    found = {path: forward_and_backward(experts, path, x, routing) for path in ("loop", "grouped", "batched", "auto")}
    for loop, *others in zip(*found.values(), strict=True):
        for other in others:
            assert (other - loop).abs().max() <= 1e-5 * loop.abs().max()


def forward_and_backward(experts: Experts, path: str, x: Tensor, routing: Routing) -> list[Tensor]:
    experts.path = path
    experts.zero_grad()
    x, weights = x.clone().requires_grad_(), routing.weights_nk.clone().requires_grad_()
    y = experts(x, routing._replace(weights_nk=weights))
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(4))).sum().backward()
    return [y.detach(), x.grad, weights.grad, experts.gate_up_proj.grad, experts.down_proj.grad]


@pytest.mark.parametrize("frozen", ["gate_up_proj", "down_proj", "x"])
def test_frozen_parts_get_no_gradient_and_change_no_other(frozen: str) -> None:
    experts = Experts(CONFIG)
    for weight in experts.parameters():
        nn.init.normal_(weight, std=0.2)
    scores = torch.rand(20, EXPERTS)
    weights, indices = scores.topk(3)
    gradients = []
    for freeze in (False, True):
        leaves = {"x": torch.ones(20, MODEL).requires_grad_(), **dict(experts.named_parameters())}
        experts.zero_grad()
        leaves[frozen].requires_grad_(not freeze)
        experts(leaves["x"], Routing(indices, weights, scores, scores)).square().sum().backward()
        leaves[frozen].requires_grad_()
        gradients.append({name: leaf.grad for name, leaf in leaves.items()})
    assert gradients[1].pop(frozen) is None
    assert all(torch.equal(gradient, gradients[0][name]) for name, gradient in gradients[1].items())
