"""Muon against the plain definition, one matrix at a time in float32."""

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from deepseek.errors import ConfigError
from deepseek.models.decoder import Model
from deepseek.optim.groups import weight_kinds
from deepseek.optim.muon import Muon, orthogonalised
from model_cases import CASES


def plain_orthogonal(matrix: Tensor) -> Tensor:
    """Jordan et al., in float32."""
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def plain_muon(weight: Tensor, gradients: list[Tensor], lr: float, decay: float) -> Tensor:
    mean = torch.zeros_like(weight)
    for gradient in gradients:
        mean = 0.95 * mean + 0.05 * gradient
        update = plain_orthogonal(0.05 * gradient + 0.95 * mean)
        weight = weight * (1 - lr * decay) - lr * 0.2 * max(weight.shape) ** 0.5 * update
    return weight


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 16)])
def test_steps_are_those_of_the_definition(shape: tuple[int, int]) -> None:
    random = torch.Generator().manual_seed(0)
    weight = Parameter(torch.randn(shape, generator=random))
    gradients = [torch.randn(shape, generator=random) for _ in range(4)]
    expected = plain_muon(weight.detach().clone(), gradients, lr=0.02, decay=0.1)
    before = weight.detach().clone()
    optimizer = Muon([weight], lr=0.02, weight_decay=0.1)
    for gradient in gradients:
        weight.grad = gradient
        optimizer.step()
    moved, rightly = weight.detach() - before, expected - before
    assert (moved - rightly).norm() < 0.03 * rightly.norm()  # Newton-Schulz runs in bfloat16


def test_a_stack_is_its_matrices_one_by_one() -> None:
    random = torch.Generator().manual_seed(1)
    stack = torch.randn(5, 8, 12, generator=random)
    together = orthogonalised(stack, 5)
    for at in range(5):
        torch.testing.assert_close(together[at], orthogonalised(stack[at][None], 5)[0], rtol=0.02, atol=0.02)


def test_singular_values_come_near_one() -> None:
    values = torch.linalg.svdvals(orthogonalised(torch.randn(3, 16, 40), 5).float())
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_two_matrices_one_above_the_other_are_made_orthogonal_each_by_itself() -> None:
    random = torch.Generator().manual_seed(2)
    gradient = torch.randn(3, 16, 12, generator=random)
    gradient[:, 8:] *= 100  # together, this half would be all
    pair = Parameter(torch.zeros(3, 16, 12))
    pair.grad = gradient
    Muon([{"params": [pair], "matrices_per_weight": 2}], lr=1.0, weight_decay=0.0).step()
    halves = [Parameter(torch.zeros(3, 8, 12)) for _ in range(2)]
    for half, part in zip(halves, gradient.split(8, dim=1), strict=True):
        half.grad = part
    Muon(halves, lr=1.0, weight_decay=0.0).step()
    torch.testing.assert_close(
        pair.detach(), torch.cat([half.detach() for half in halves], dim=1), rtol=0.02, atol=0.01
    )
    upper, lower = pair.detach().split(8, dim=1)
    assert upper.norm().item() == pytest.approx(lower.norm().item(), rel=0.2)


def test_masters_of_bfloat16_weights() -> None:
    weight = Parameter(torch.full((8, 8), 100.0).bfloat16())
    optimizer = Muon([weight], lr=0.001, weight_decay=0.0)
    for _ in range(5):
        weight.grad = torch.eye(8).bfloat16()
        optimizer.step()
    assert (weight == 100).all()
    assert (optimizer.master(weight).diagonal() < 100).all()


def test_vectors_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"not a weight of shape \[3\]"):
        Muon([Parameter(torch.zeros(3))])


def test_which_weights_are_whose() -> None:
    model = Model(CASES["v3"])
    names = {parameter: name for name, parameter in model.named_parameters()}
    kinds = weight_kinds(model.named_parameters())
    tables = {names[parameter] for parameter in kinds.tables}
    assert tables == {
        "model.embed_tokens.weight",
        "lm_head.weight",
        *(f"model.layers.{i}.mlp.gate.weight" for i in (1, 2)),
    }
    assert {names[parameter] for parameter in kinds.pairs} == {
        f"model.layers.{layer}.mlp.experts.gate_up_proj" for layer in (1, 2)
    }
    assert all(parameter.dim() == 1 for parameter in kinds.vectors)
    assert "model.layers.0.mlp.gate_proj.weight" in {names[parameter] for parameter in kinds.matrices}
    counted = [*kinds.matrices, *kinds.pairs, *kinds.tables, *kinds.vectors]
    assert len(counted) == len(names)
