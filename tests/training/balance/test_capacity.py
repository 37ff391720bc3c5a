"""Capacity: dropless drops none; fixed drops what is beyond it, later tokens first; dynamic learns to drop none."""

import math
from dataclasses import replace

import pytest
import torch
from test_balance import BATCHES, GATES, random_model
from torch import Tensor

from deepseek.errors import ConfigError
from deepseek.models.decoder import Model
from deepseek.models.routing_record import record_routing
from deepseek.training.balance import BalanceConfig, CapacityConfig, LayerLoad, RoutingTraining
from deepseek.training.loss import language_model_loss

NONE = BalanceConfig(bias_update_speed=0, sequence_loss=0)
LEARNING = CapacityConfig(mode="dynamic", factor=1.0, coefficient=0.0, memory=0.5)


def step(model: Model, routing: RoutingTraining, batches: list[Tensor] = BATCHES) -> tuple[LayerLoad, ...]:
    routing.begin_step(len(batches))
    for tokens in batches:
        (language_model_loss(model, tokens).total / len(batches)).backward()
    return routing.end_step()


def test_dropless_drops_none_and_changes_nothing() -> None:
    model = random_model()
    expected = language_model_loss(model, BATCHES[0]).main
    routing = RoutingTraining(model, NONE)
    routing.begin_step(1)
    assert language_model_loss(model, BATCHES[0]).main == expected
    assert all(load.dropped == 0 and load.capacity is None for load in routing.end_step())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_fixed_capacity_drops_what_is_beyond_it(checkpointing: bool) -> None:
    model = random_model()
    model.gradient_checkpointing = checkpointing
    routing = RoutingTraining(model, NONE, CapacityConfig(mode="fixed", factor=1.0))
    with record_routing(model) as record:
        loads = step(model, routing)
    for load, name in zip(loads, GATES[:2], strict=True):
        calls = record.calls[name][: len(BATCHES)] if not checkpointing else record.calls[name][::2]
        counts = torch.stack([call.indices_nk.flatten().bincount(minlength=12) for call in calls])
        tokens, k = calls[0].indices_nk.shape
        places = -(-tokens * k // 12)
        assert load.dropped == (counts - places).clamp(min=0).sum() > 0
        assert load.capacity == pytest.approx(12 * places / (tokens * k))


def test_dropped_tokens_lose_only_the_full_expert() -> None:
    """With room for all the loss is that of dropless; with room for one token an expert, another."""
    model = random_model()
    expected = language_model_loss(model, BATCHES[0]).main
    losses = {}
    for factor in (12.0, 0.01):
        routing = RoutingTraining(model, NONE, CapacityConfig(mode="fixed", factor=factor))
        routing.begin_step(1)
        losses[factor] = language_model_loss(model, BATCHES[0]).main
        routing.end_step()
        routing.close()
    torch.testing.assert_close(losses[12.0], expected, rtol=1e-5, atol=0)
    assert (losses[0.01] - expected).abs() > 1e-3


def test_capacity_is_for_training_only() -> None:
    model = random_model()
    with torch.no_grad():
        expected = language_model_loss(model, BATCHES[0]).main
    routing = RoutingTraining(model, NONE, CapacityConfig(mode="fixed", factor=0.1))
    routing.begin_step(1)
    with torch.no_grad():
        assert language_model_loss(model, BATCHES[0]).main == expected


def test_dynamic_capacity_is_base_times_one_plus_coefficient_times_load() -> None:
    model = random_model()
    routing = RoutingTraining(model, NONE, CapacityConfig(mode="dynamic", factor=0.5, coefficient=0.8))
    capacity = routing._routers[GATES[0]].capacity
    capacity.load_e[:] = torch.linspace(0, 3, 12)
    places = [max(1, math.ceil(0.5 * 240 / 12 * (1 + 0.8 * load))) for load in capacity.load_e.tolist()]
    assert capacity.of(240).tolist() == places


def test_dynamic_capacity_learns_to_drop_none_with_fewer_places_than_the_fullest_needs() -> None:
    model = random_model()
    routing = RoutingTraining(model, NONE, replace(LEARNING, release=0.3))
    batches = [torch.randint(0, 67, (16, 33), generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    dropped = [[load.dropped for load in step(model, routing, batches)] for _ in range(12)]
    loads = step(model, routing, batches)
    assert all(dropped[0])
    assert not any(dropped[-1])
    for load in loads:
        assert load.capacity < 0.7 * (load.max_violation + 1)  # what places like the fullest's for all would take


def test_an_unneeded_coefficient_sinks() -> None:
    model = random_model()
    routing = RoutingTraining(model, NONE, CapacityConfig(mode="dynamic", factor=4.0, coefficient=5.0, release=0.2))
    step(model, routing)
    assert routing.state_dict()[f"{GATES[0]}.coefficient"] == pytest.approx(4.0)


def test_state_is_restored_bit_for_bit() -> None:
    capacity = CapacityConfig(mode="dynamic", factor=0.6, coefficient=0.1)
    model = random_model()
    routing = RoutingTraining(model, replace(NONE, bias_update_speed=0.01), capacity)
    step(model, routing)
    state, weights = routing.state_dict(), {name: value.clone() for name, value in model.state_dict().items()}
    expected = step(model, routing), routing.state_dict()
    other = random_model()
    other.load_state_dict(weights)
    restored = RoutingTraining(other, replace(NONE, bias_update_speed=0.01), capacity)
    restored.load_state_dict(state)
    assert step(other, restored) == expected[0]
    again = restored.state_dict()
    assert all(torch.equal(again[name], value) for name, value in expected[1].items())
    assert all(torch.equal(a, b) for a, b in zip(other.buffers(), model.buffers(), strict=True))


def test_state_of_another_model_is_refused() -> None:
    routing = RoutingTraining(random_model(), NONE)
    with pytest.raises(ConfigError, match="does not fit"):
        routing.load_state_dict({})


@pytest.mark.parametrize(
    "values", [{"mode": "none"}, {"factor": 0.0}, {"coefficient": -1.0}, {"release": 0.0}, {"memory": 2.0}]
)
def test_settings_are_checked(values: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        CapacityConfig(**values)
