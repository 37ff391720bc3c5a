"""Whatever stops being a number is traced to its module, layer and expert."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deepseek.models.auto import AutoModel
from deepseek.models.decoder import Model
from deepseek.training.not_finite import FINITE, explain
from model_cases import CASES

IDS = torch.randint(0, 67, (4, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> Model:
    return AutoModel.from_config(CASES["v3-aligned-experts"], seed=0, std=0.1)


def loss_of(model: Model) -> Tensor:
    logits = model(IDS).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())


def test_a_healthy_model_is_found_healthy(model: Model) -> None:
    assert explain(model, lambda: loss_of(model)) == FINITE


def test_a_weight(model: Model) -> None:
    model.model.layers[2].mlp.experts.gate_up_proj.data[[1, 4], 0, 0] = float("nan")
    found = explain(model, lambda: loss_of(model))
    assert found == "layer 2, experts 1, 4: the weight model.layers.2.mlp.experts.gate_up_proj is not finite"


def test_the_output_of_an_expert(model: Model) -> None:
    experts = model.model.layers[2].mlp.experts
    experts.down_proj.data[7] = 3e38
    experts.gate_up_proj.data[7] *= 100
    found = explain(model, lambda: loss_of(model))
    assert found == "layer 2, expert 7: the output of model.layers.2.mlp.experts is not finite"


def test_the_output_of_a_projection(model: Model) -> None:
    model.model.layers[1].self_attn.o_proj.weight.data.fill_(3e38)
    found = explain(model, lambda: loss_of(model))
    assert found == "layer 1: the output of model.layers.1.self_attn.o_proj is not finite"


def test_the_loss_alone(model: Model) -> None:
    assert explain(model, lambda: loss_of(model) * float("inf")).startswith("the head: the loss is not finite")


def test_a_gradient_on_its_way_back(model: Model) -> None:
    """A factor that is finite forwards and overflows backwards, behind layer 1."""

    class Burst(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.view_as(x)

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return gradient * float("inf")

    model.model.layers[1].mlp.register_forward_hook(lambda module, args, output: Burst.apply(output))
    found = explain(model, lambda: loss_of(model))
    name = "model.layers.1.mlp.down_proj"
    assert found == f"layer 1: the gradient that comes back to the output of {name} is not finite"


def test_nothing_is_left_hanging(model: Model) -> None:
    explain(model, lambda: loss_of(model))
    assert not any(module._forward_hooks for module in model.modules())
