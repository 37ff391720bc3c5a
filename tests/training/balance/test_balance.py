"""Balance gradients equal autograd's over the formulas as printed; biases, reports and state do what they say."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from deepseek.config import ModelConfig
from deepseek.errors import ConfigError
from deepseek.models.decoder import Model
from deepseek.models.moe import Router
from deepseek.models.routing import Routing
from deepseek.models.routing_record import record_routing
from deepseek.training.balance import BalanceConfig, LayerLoad, RoutingTraining
from deepseek.training.loss import language_model_loss
from model_cases import CASES, V3_GROUPS
from model_reference import randomise, relative_difference

NONE = BalanceConfig(bias_update_speed=0, sequence_loss=0)
ALL = BalanceConfig(auxiliary_loss=0.3, sequence_loss=0.2, global_batch_loss=0.4, router_z_loss=0.05)
CONFIG = replace(CASES["v3"], num_nextn_predict_layers=1)
GATES = ["model.layers.1.mlp.gate", "model.layers.2.mlp.gate", "model.layers.3.mlp.gate"]
BATCHES = [torch.randint(0, 67, (3, 9), generator=torch.Generator().manual_seed(seed)) for seed in range(3)]


def random_model(config: ModelConfig = CONFIG) -> Model:
    model = Model(config)
    randomise(model, 0)
    return model


def step(
    model: Model, balance: BalanceConfig, batches: list[Tensor] = BATCHES, *, loss_scale: float = 1.0
) -> tuple[dict[str, Tensor], tuple[LayerLoad, ...]]:
    """The gradients of one training step, and its loads."""
    routing = RoutingTraining(model, balance)
    routing.begin_step(len(batches), loss_scale=loss_scale)
    model.zero_grad()
    for tokens in batches:
        (loss_scale * language_model_loss(model, tokens, mtp_weight=0.3).total / len(batches)).backward()
    loads = routing.end_step()
    routing.close()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}, loads


def balance_as_printed(routing: Routing, sequences: int, counts_before: Tensor, balance: BalanceConfig) -> Tensor:
    """Switch equations 4 to 6, V3 equations 17 to 20, Qwen's equation over the batch so far, ST-MoE's equation 5."""
    scores, chosen = routing.scores_ne, routing.indices_nk
    tokens, experts = scores.shape
    per_token = scores / scores.sum(dim=1, keepdim=True)
    took = torch.zeros_like(scores).scatter(1, chosen, 1.0)
    k, length = chosen.shape[1], tokens // sequences
    loss = torch.zeros(())
    for e in range(experts):
        f = experts / (k * tokens) * took[:, e].sum()
        loss = loss + balance.auxiliary_loss * f * per_token[:, e].mean()
        so_far = counts_before + took.sum(dim=0)
        loss = loss + balance.global_batch_loss * experts * so_far[e] / so_far.sum() * per_token[:, e].mean()
        for s in range(sequences):
            rows = slice(s * length, (s + 1) * length)
            f = experts / (k * length) * took[rows, e].sum()
            loss = loss + balance.sequence_loss * f * per_token[rows, e].mean() / sequences
    return loss + balance.router_z_loss * routing.logits_ne.exp().sum(dim=1).log().square().mean()


def plain_step(model: Model, balance: BalanceConfig, batches: list[Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Slow twin of `step`: gradients, and each layer's mean balance loss."""
    seen: list[tuple[int, Routing]] = []
    routers = [module for module in model.modules() if isinstance(module, Router)]
    handles = [
        router.register_forward_hook(lambda _, args, routing: seen.append((args[0].shape[0], routing)))
        for router in routers
    ]
    counts = [torch.zeros(router.moe.n_routed_experts) for router in routers]
    losses = [torch.zeros(()) for _ in routers]
    model.zero_grad()
    for tokens in batches:
        seen.clear()
        total = language_model_loss(model, tokens, mtp_weight=0.3).total
        for place, (sequences, routing) in enumerate(seen):
            extra = balance_as_printed(routing, sequences, counts[place], balance)
            counts[place] = counts[place] + routing.indices_nk.flatten().bincount(minlength=len(counts[place]))
            losses[place] = losses[place] + extra.detach() / len(batches)
            total = total + extra
        (total / len(batches)).backward()
    for handle in handles:
        handle.remove()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}, losses


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert relative_difference(found[name], gradient) < 1e-5, name


@pytest.mark.parametrize(
    "strengths",
    [{"auxiliary_loss": 0.3}, {"sequence_loss": 0.3}, {"global_batch_loss": 0.3}, {"router_z_loss": 0.1}, None],
    ids=["auxiliary", "sequence", "global", "z", "all"],
)
@pytest.mark.parametrize("name", ["v3", "v2-groups"])
def test_balance_gradients_equal_the_formulas(name: str, strengths: dict[str, float] | None) -> None:
    balance = replace(NONE, **strengths) if strengths else replace(ALL, bias_update_speed=0)
    model = random_model(replace(CASES[name], num_nextn_predict_layers=1))
    expected, losses = plain_step(model, balance, BATCHES)
    found, loads = step(model, balance)
    assert_same(found, expected)
    without, _ = step(model, NONE)
    assert not torch.allclose(found[GATES[0] + ".weight"], without[GATES[0] + ".weight"], rtol=1e-2)
    assert [load.balance_loss for load in loads] == pytest.approx([loss.item() for loss in losses], rel=1e-4)


def test_balance_gradients_scale_with_the_loss() -> None:
    balance = replace(ALL, bias_update_speed=0)
    once, _ = step(random_model(), balance)
    scaled, _ = step(random_model(), balance, loss_scale=128)
    assert_same({name: gradient / 128 for name, gradient in scaled.items()}, once)


def test_recomputed_layers_are_not_counted_twice() -> None:
    model = random_model()
    expected, loads = step(model, replace(ALL, bias_update_speed=0))
    model.gradient_checkpointing = True
    found, again = step(model, replace(ALL, bias_update_speed=0))
    assert_same(found, expected)
    assert again == loads


def test_a_global_batch_survives_forwards_before_backwards() -> None:
    """A pipeline runs several micro-batches forward before their backward passes recompute them."""

    def gradients(checkpointing: bool) -> dict[str, Tensor]:
        model = random_model()
        model.gradient_checkpointing = checkpointing
        routing = RoutingTraining(model, replace(NONE, global_batch_loss=0.5))
        routing.begin_step(len(BATCHES))
        losses = [language_model_loss(model, tokens).total / len(BATCHES) for tokens in BATCHES]
        for loss in losses:
            loss.backward()
        routing.end_step()
        return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}

    assert_same(gradients(checkpointing=True), gradients(checkpointing=False))


def test_biases_move_by_the_sign_of_the_whole_step() -> None:
    model = random_model()
    before = {name: model.get_submodule(name).e_score_correction_bias.clone() for name in GATES}
    with record_routing(model) as record:
        step(model, BalanceConfig(bias_update_speed=0.01))
    for name in GATES:
        counts = record.expert_counts(name).double()
        moved = model.get_submodule(name).e_score_correction_bias - before[name]
        torch.testing.assert_close(moved, 0.01 * (counts.mean() - counts).sign().float(), atol=1e-6, rtol=0)


def test_layers_that_did_not_run_are_left_alone() -> None:
    model = random_model()
    before = model.get_submodule(GATES[2]).e_score_correction_bias.clone()
    routing = RoutingTraining(model)
    routing.begin_step(1)
    language_model_loss(model, BATCHES[0]).total.backward()
    assert [load.layer for load in routing.end_step()] == [1, 2]
    assert torch.equal(model.get_submodule(GATES[2]).e_score_correction_bias, before)


def one_router_of_sixteen() -> Model:
    torch.manual_seed(0)
    moe = replace(V3_GROUPS, n_routed_experts=16, n_group=1, topk_group=1, num_experts_per_tok=2)
    model = Model(replace(CASES["v3"], num_hidden_layers=2, moe=moe))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model


def test_loss_free_bias_evens_out_a_skewed_router() -> None:
    model = one_router_of_sixteen()
    with torch.no_grad():
        model.get_submodule(GATES[0]).weight[:3] += 0.3  # three experts draw most tokens
    tokens = torch.randint(0, 67, (16, 33))
    routing = RoutingTraining(model, replace(NONE, bias_update_speed=0.003))
    violations = []
    for _ in range(150):
        routing.begin_step(1)
        language_model_loss(model, tokens)
        violations.append(routing.end_step()[0].max_violation)
    assert violations[0] > 5
    assert max(violations[-20:]) < 0.25


def test_biases_that_slow_down_settle_where_noise_of_batches_had_them_wander() -> None:
    model = one_router_of_sixteen()
    batches, unseen = torch.randint(0, 67, (300, 8, 17)), torch.randint(0, 67, (256, 17))

    def violation_after(fall: Callable[[float], float]) -> float:
        twin = deepcopy(model)
        routing = RoutingTraining(twin, replace(NONE, bias_update_speed=0.01))
        for number, tokens in enumerate(batches):
            routing.begin_step(1)
            language_model_loss(twin, tokens)
            routing.end_step(fall(number / len(batches)))
        routing.begin_step(1)
        language_model_loss(twin, unseen)
        return routing.end_step()[0].max_violation

    assert violation_after(lambda done: min(1.0, 2 - 2 * done)) < 0.5 * violation_after(lambda done: 1.0)


def test_reports_follow_their_definitions() -> None:
    model = random_model()
    with record_routing(model) as record:
        _, loads = step(model, NONE)
    assert [load.layer for load in loads] == [1, 2, 3]
    for load, name in zip(loads, GATES, strict=True):
        counts = record.expert_counts(name).double()
        share = counts / counts.sum()
        assert load.load_e == pytest.approx(share.tolist())
        assert load.max_violation == pytest.approx((counts.max() / counts.mean() - 1).item())
        assert load.utilisation == pytest.approx((counts.mean() / counts.max()).item())
        used = share[share > 0]
        assert load.entropy == pytest.approx(-(used * used.log()).sum().item() / math.log(len(counts)))
        confidence = [
            (routing.scores_ne.gather(1, routing.indices_nk).sum(1) / routing.scores_ne.sum(1))
            for routing in record.calls[name]
        ]
        assert load.confidence == pytest.approx(torch.cat(confidence).mean().item(), rel=1e-5)
        assert (load.dropped, load.capacity, load.balance_loss, load.router_z) == (0, None, 0, 0)


def test_passes_outside_of_training_count_nothing() -> None:
    model = random_model()
    _, loads = step(model, NONE)
    routing = RoutingTraining(model, NONE)
    language_model_loss(model, BATCHES[0])
    routing.begin_step(len(BATCHES))
    for tokens in BATCHES:
        with torch.no_grad():
            language_model_loss(model, tokens)
        language_model_loss(model, tokens, mtp_weight=0.3)
    assert routing.end_step() == loads


def test_closing_leaves_the_model_alone() -> None:
    model = random_model()
    RoutingTraining(model, ALL).close()
    assert not any(module._forward_hooks for module in model.modules())


def test_a_bias_needs_a_router_that_has_one() -> None:
    with pytest.raises(ConfigError, match=r"bias_update_speed.*noaux_tc"):
        RoutingTraining(random_model(CASES["v2-groups"]))


@pytest.mark.parametrize("field", ["auxiliary_loss", "bias_update_speed"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), True])
def test_strengths_are_checked(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field):
        BalanceConfig(**{field: value})
