"""The router against its definition written out token by token, and the two ways to run experts against each other."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from deepseek.config import ModelConfig, MoeConfig
from deepseek.models.decoder import Model
from deepseek.models.experts import Experts
from deepseek.models.moe import MoE, Router
from deepseek.models.routing_record import record_routing
from model_cases import CASES, V2_GREEDY, V2_GROUPS, V3_GROUPS

ROUTERS = {
    "softmax-greedy": V2_GREEDY,
    "softmax-greedy-normed": replace(V2_GREEDY, norm_topk_prob=True),
    "softmax-groups": V2_GROUPS,
    "sigmoid-groups": V3_GROUPS,
    "sigmoid-unnormed": replace(V3_GROUPS, norm_topk_prob=False),
    "sqrtsoftplus": replace(V3_GROUPS, scoring_func="sqrtsoftplus", n_group=1, topk_group=1),
    "one-expert": replace(V3_GROUPS, n_routed_experts=1, num_experts_per_tok=1, n_group=1, topk_group=1),
    "all-experts": replace(V2_GREEDY, num_experts_per_tok=7),
    "many-experts": replace(V3_GROUPS, n_routed_experts=96, n_group=8, topk_group=3, num_experts_per_tok=8),
}


def config_with(moe: MoeConfig) -> ModelConfig:
    return replace(CASES["v3"], moe=moe)


def random_router(moe: MoeConfig, *, bias: float = 0.5) -> Router:
    torch.manual_seed(1)
    router = Router(config_with(moe))
    nn.init.normal_(router.weight, std=0.4)
    if moe.has_correction_bias:
        router.e_score_correction_bias.normal_(std=bias)
    return router


def route_one(logits: list[float], bias: list[float], moe: MoeConfig) -> dict[int, float]:
    """The definition (V2, equations 20 to 22; V3, equations 12 to 16): expert -> weight."""
    total = sum(map(math.exp, logits))
    score = {
        "softmax": lambda x: math.exp(x) / total,
        "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
        "sqrtsoftplus": lambda x: math.sqrt(math.log1p(math.exp(x))),
    }[moe.scoring_func]
    scores = [score(x) for x in logits]
    choice = [s + b for s, b in zip(scores, bias, strict=True)]
    size = moe.experts_per_group
    groups = [range(g * size, (g + 1) * size) for g in range(moe.n_group)]
    counted = 2 if moe.topk_method == "noaux_tc" else 1
    groups.sort(key=lambda group: -sum(sorted((choice[e] for e in group), reverse=True)[:counted]))
    allowed = [e for group in groups[: moe.topk_group] for e in group]
    chosen = sorted(allowed, key=lambda e: -choice[e])[: moe.num_experts_per_tok]
    weight = sum(scores[e] for e in chosen) if moe.norm_topk_prob else 1.0
    return {e: scores[e] / weight * moe.routed_scaling_factor for e in chosen}


@pytest.mark.parametrize("moe", ROUTERS.values(), ids=ROUTERS)
def test_router_follows_its_definition(moe: MoeConfig) -> None:
    router = random_router(moe)
    x = torch.randn(40, 32)
    routing = router(x)
    bias = router.e_score_correction_bias.tolist() if moe.has_correction_bias else [0.0] * moe.n_routed_experts
    for token, logits in enumerate((x.double() @ router.weight.double().T).tolist()):
        expected = route_one(logits, bias, moe)
        got = dict(zip(routing.indices_nk[token].tolist(), routing.weights_nk[token].tolist(), strict=True))
        assert got == pytest.approx(expected, rel=1e-4)


def test_negative_biases_never_bring_back_a_dropped_group() -> None:
    router = random_router(V3_GROUPS)
    router.e_score_correction_bias.fill_(-5.0)
    router.e_score_correction_bias[:3] = -4.0  # group 0 wins
    groups = router(torch.randn(50, 32)).indices_nk // V3_GROUPS.experts_per_group
    assert all(len(set(row)) <= V3_GROUPS.topk_group for row in groups.tolist())
    assert (groups == 0).any(dim=1).all()


def test_router_works_in_float32_in_a_bfloat16_model() -> None:
    router = random_router(V3_GROUPS)
    bias = router.e_score_correction_bias.clone()
    router.to(torch.bfloat16)
    assert router.weight.dtype == torch.bfloat16
    assert torch.equal(router.e_score_correction_bias, bias)
    routing = router(torch.randn(5, 32, dtype=torch.bfloat16))
    assert routing.weights_nk.dtype == routing.scores_ne.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 2, 33])
def test_grouped_experts_equal_the_loop(dtype: torch.dtype, tokens: int) -> None:
    moe = replace(V3_GROUPS, moe_intermediate_size=24)
    experts, router = Experts(config_with(moe)), random_router(moe)
    for weight in experts.parameters():
        nn.init.normal_(weight, std=0.2)
    experts.to(dtype)
    results = {}
    for path in ("loop", "grouped"):
        experts.path = path
        experts.zero_grad()
        x = torch.randn(tokens, 32, generator=torch.Generator().manual_seed(3)).to(dtype).requires_grad_()
        y = experts(x, router(x))
        y.square().sum().backward()
        results[path] = [y, x.grad, experts.gate_up_proj.grad, experts.down_proj.grad]
    for loop, grouped in zip(*results.values(), strict=True):
        scale = loop.abs().max().item()
        torch.testing.assert_close(grouped, loop, rtol=0, atol=scale * (1e-5 if dtype == torch.float32 else 0.02))


def test_unaligned_experts_take_the_loop() -> None:
    experts = Experts(config_with(replace(V3_GROUPS, moe_intermediate_size=9)))
    for weight in experts.parameters():
        nn.init.normal_(weight)
    x = torch.randn(6, 32)
    assert torch.isfinite(experts(x, random_router(V3_GROUPS)(x))).all()


def test_a_token_does_not_depend_on_the_rest_of_the_batch() -> None:
    """Experts add in each token's own order: the same token alone gets the same bits from the loop."""
    layer = Model(config_with(replace(V3_GROUPS, moe_intermediate_size=16))).model.layers[1].mlp
    assert isinstance(layer, MoE)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = torch.randn(1, 9, 32)
    together = layer(x)
    for place in range(9):
        torch.testing.assert_close(layer(x[:, place : place + 1])[0, 0], together[0, place], rtol=1e-5, atol=1e-6)


def test_scaling_is_applied_once() -> None:
    def output(factor: float) -> Tensor:
        torch.manual_seed(0)
        moe = replace(V3_GROUPS, routed_scaling_factor=factor, n_shared_experts=0)
        layer = MoE(config_with(moe))
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.2)
        return layer(torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(5)))

    torch.testing.assert_close(output(3.0), 3 * output(1.0))


def test_recording_what_routers_do() -> None:
    model = Model(CASES["v3"]).eval()
    ids = torch.randint(0, 67, (2, 6))
    with record_routing(model) as record:
        model(ids)
        model(ids[:, :1])
    model(ids)
    assert list(record.calls) == ["model.layers.1.mlp.gate", "model.layers.2.mlp.gate"]
    calls = record.calls["model.layers.1.mlp.gate"]
    assert [tuple(routing.indices_nk.shape) for routing in calls] == [(12, 3), (2, 3)]
    assert not calls[0].weights_nk.requires_grad
    assert record.expert_counts("model.layers.2.mlp.gate").sum() == (12 + 2) * 3
