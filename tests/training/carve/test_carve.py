"""A carved model is the dense one with all experts on, loads everywhere, and its parts do what they claim."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from carve_models import DENSE, SPLIT, dense_model, windows

from deepseek.config import ModelConfig
from deepseek.errors import ConfigError
from deepseek.models.auto import AutoModel
from deepseek.models.decoder import Model
from deepseek.training.carve import CarveConfig, carve, upcycle
from deepseek.training.carve.compensation import ColumnFit
from deepseek.training.carve.grouping import Grouping, _refined, assign_with_capacity, balanced_clusters, group_neurons
from deepseek.training.carve.routing import choose, expert_sizes, fit_router
from model_cases import CASES


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", DENSE)
@torch.no_grad()
def test_all_experts_on_are_the_dense_model(name: str) -> None:
    model, ids = dense_model(DENSE[name]), windows(DENSE[name])
    dense = model(ids).logits
    carved = carve(model, ids, replace(SPLIT, active=6)).to_model()
    assert carved.config.family == "glm4_moe"
    assert distance(carved(ids).logits, dense) < 5e-3
    part = carve(dense_model(DENSE[name]), ids, SPLIT).to_model()
    assert distance(part(ids).logits, dense) > 0.1  # half of the experts are not


@torch.no_grad()
def test_the_saved_layout_computes_what_the_carving_does(tmp_path: Path) -> None:
    config = DENSE["llama"]
    carving = carve(dense_model(config), windows(config), SPLIT)
    ids = windows(config, 3)
    expected = carving.model(ids).logits
    carving.to_model().save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, dtype="float32", device="cpu")
    assert loaded.config == carving.config()
    errors_bt = (loaded(ids).logits - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert errors_bt.quantile(0.9) < 5e-3  # the rest is for near ties between experts


def planted_strength(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Four groups of 8 neurons that each fire by one direction of the input, and 8 neurons that always do."""
    x = torch.randn(2000, 16, generator=generator)
    on = (x[:, :4] > 0.7).float()
    planted = torch.arange(4).repeat_interleave(8)[torch.randperm(32, generator=generator)]
    strength = on[:, planted] * (0.5 + torch.rand(2000, 32, generator=generator))
    always = 2 + torch.rand(2000, 8, generator=generator)
    return x, torch.cat((strength, always), dim=1), planted


@pytest.mark.parametrize("active", [1, 4])
def test_groups_are_balanced_and_hold_what_fires_together(active: int) -> None:
    x, strength, planted = planted_strength(torch.Generator().manual_seed(3))
    grouping = group_neurons(strength, x, experts=4, shared=8, width=8, active=active, seed=0)
    assert grouping.order_i[:8].tolist() == list(range(32, 40))
    assert sorted(grouping.order_i.tolist()) == list(range(40))
    for group in grouping.order_i[8:].split(8):
        assert len(set(planted[group].tolist())) == 1


def test_a_wrong_grouping_is_mended_by_what_the_router_opens() -> None:
    x, strength, _ = planted_strength(torch.Generator().manual_seed(3))

    def kept(grouping: Grouping) -> float:
        routed = strength[:, grouping.order_i[8:]]
        weight, bias = fit_router(x, expert_sizes(routed, 4))
        open_ = choose(x @ weight.T + bias, 1).repeat_interleave(8, dim=1)
        return float((routed * open_).square().sum() / strength[:, :32].square().sum())

    wrong = Grouping(torch.cat((torch.arange(32, 40), torch.arange(32))), 8, 8)
    better = _refined(_refined(wrong, strength, x, 1), strength, x, 1)
    assert kept(better) > 1.3 * kept(wrong)


def test_clusters_have_one_size_whatever_the_rows_like() -> None:
    same = torch.ones(24, 5) + 1e-3 * torch.rand(24, 5, generator=torch.Generator().manual_seed(4))
    assert balanced_clusters(same, 4, 6, seed=0).bincount().tolist() == [6, 6, 6, 6]
    liking = torch.tensor([[1.0, 0.9], [1.0, 0.1], [1.0, 0.8], [1.0, 0.7]]).numpy()
    assert assign_with_capacity(liking, 2).tolist() == [1, 0, 1, 0]


def test_the_router_learns_a_planted_structure() -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2000, 16, generator=generator) + 0.5
    planted = torch.randn(6, 16, generator=generator)
    sizes = x @ planted.T + torch.arange(6.0) + 0.1 * torch.randn(2000, 6, generator=generator)
    weight, bias = fit_router(x[:1000], sizes[:1000])
    found = (x[1000:] @ weight.T + bias).topk(2, dim=1).indices.sort(dim=1).values
    best = sizes[1000:].topk(2, dim=1).indices.sort(dim=1).values
    assert (found == best).all(dim=1).float().mean() > 0.9


def errors_of_a_refit(
    activations: torch.Tensor, down: torch.Tensor, *, fitted_on: int, generator: torch.Generator
) -> tuple[float, float]:
    """Half of the neurons dropped by chance: errors on unseen tokens, of the columns as they were and refitted."""
    masked = activations * (torch.rand(activations.shape, generator=generator) < 0.5)
    wanted = activations @ down.T
    fit = ColumnFit(down)
    for number, part in enumerate(torch.arange(fitted_on).split(16)):
        fit.add(masked[part], wanted[part], judging=number % 8 == 7)
    refitted = fit.columns()
    before, after = (distance(masked[fitted_on:] @ columns.T, wanted[fitted_on:]) for columns in (down, refitted))
    return before, after


def test_compensation_makes_up_for_dropped_neurons() -> None:
    generator = torch.Generator().manual_seed(6)
    hidden = torch.randn(2000, 4, generator=generator)
    activations = torch.tanh(hidden @ torch.randn(4, 24, generator=generator)) + 0.5
    down = torch.randn(8, 24, generator=generator)
    before, after = errors_of_a_refit(activations, down, fitted_on=1000, generator=generator)
    assert after < 0.7 * before, (before, after)


def test_compensation_does_no_harm_where_there_is_nothing_to_learn() -> None:
    """Neurons that know nothing of each other, and few tokens: a fit of what is dropped would be a fit of chance."""
    generator = torch.Generator().manual_seed(7)
    activations = torch.randn(4000, 64, generator=generator)
    down = torch.randn(8, 64, generator=generator)
    before, after = errors_of_a_refit(activations, down, fitted_on=128, generator=generator)
    assert after < 1.05 * before, (before, after)


@pytest.mark.parametrize(("change", "hold"), [(0.0, 128.0), (1.0, 2.0)])
def test_columns_are_held_as_firmly_as_serves_text_they_are_not_fitted_to(change: float, hold: float) -> None:
    generator = torch.Generator().manual_seed(8)
    activations = torch.randn(5000, 64, generator=generator)
    down = torch.randn(8, 64, generator=generator)
    true = down + change * torch.randn(8, 64, generator=generator)
    wanted = activations @ true.T + 10 * torch.randn(5000, 8, generator=generator)
    fit = ColumnFit(down)
    fit.add(activations[:1000], wanted[:1000])
    fit.add(activations[1000:], wanted[1000:], judging=True)
    assert fit.best_hold() == hold
    assert distance(fit.columns(), true) < 0.2


@pytest.mark.parametrize("name", DENSE)
@torch.no_grad()
def test_copies_are_the_dense_model(name: str, tmp_path: Path) -> None:
    model, ids = dense_model(DENSE[name]), windows(DENSE[name], 2)
    copied = upcycle(model, experts=5, active=2)
    torch.testing.assert_close(copied(ids).logits, model(ids).logits, rtol=0, atol=1e-3)
    copied.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, dtype="float32", device="cpu")
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("config", "split", "message"),
    [
        (CASES["v1"], SPLIT, "family 'deepseek' cannot be carved"),
        (CASES["llama"], SPLIT, "mlp_bias"),
        (CASES["qwen2-window"], SPLIT, "sliding_window"),
        (DENSE["llama"], replace(SPLIT, experts=7), r"multiple of experts \+ shared \(9\); 8 parts"),
    ],
)
def test_what_cannot_be_carved_is_refused(config: ModelConfig, split: CarveConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        carve(Model(config), windows(config), split)


def test_a_split_must_make_sense() -> None:
    with pytest.raises(ConfigError, match="active must be from 1 to experts"):
        CarveConfig(experts=4, shared=1, active=5)


def test_the_usual_split_divides_real_widths() -> None:
    """SmolLM2, Qwen2.5-0.5B, Llama 3.2 1B, Llama 2 7B; and what is given stays."""
    splits = {size: CarveConfig.usual(size) for size in (1536, 4864, 8192, 11008)}
    for size, split in splits.items():
        assert split.width(size) % 32 == 0
        assert split.active_share == pytest.approx(0.75, abs=0.02)
    assert (splits[1536].experts, splits[1536].shared, splits[1536].active) == (32, 16, 20)
    assert CarveConfig.usual(64).width(64) == 2
    assert CarveConfig.usual(1536, experts=14, shared=2, active=6).active_share == 0.5
