"""AdamW: the steps of PyTorch's, masters that keep what bfloat16 would lose, state that survives saving."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from deepseek.errors import ConfigError
from deepseek.optim import master_weights
from deepseek.optim.adamw import AdamW

SHAPES = [(7,), (5, 9), (3, 4, 6)]
OPTIONS = {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.3}


def parameters(dtype: torch.dtype = torch.float32) -> list[Parameter]:
    random = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(shape, generator=random).to(dtype)) for shape in SHAPES]


def gradients(step: int) -> list[Tensor]:
    """Exact in bfloat16, so that both types see the same."""
    random = torch.Generator().manual_seed(step + 1)
    return [torch.randn(shape, generator=random).bfloat16().float() for shape in SHAPES]


def take_steps(optimizer: AdamW, held: list[Parameter], steps: int = 20) -> None:
    for step in range(steps):
        for parameter, gradient in zip(held, gradients(step), strict=True):
            parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()


@pytest.fixture
def expected() -> list[Parameter]:
    """What PyTorch's own AdamW makes of the same gradients."""
    held = parameters()
    theirs = torch.optim.AdamW(held, **OPTIONS)
    for step in range(20):
        for parameter, gradient in zip(held, gradients(step), strict=True):
            parameter.grad = gradient
        theirs.step()
    return held


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("piece", [4, 1 << 19])
def test_the_steps_are_those_of_pytorch(
    fused: bool, piece: int, expected: list[Parameter], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (master_weights, __import__("deepseek.optim.adamw", fromlist=["PIECE"])):
        monkeypatch.setattr(module, "PIECE", piece)
    held = parameters()
    take_steps(AdamW(held, **OPTIONS, fused=fused), held)
    for ours, theirs in zip(held, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_masters_keep_what_bfloat16_would_lose(expected: list[Parameter]) -> None:
    held = parameters(torch.bfloat16)
    optimizer = AdamW(held, **OPTIONS)
    start = [parameter.detach().float() for parameter in held]
    for parameter, exact in zip(held, parameters(), strict=True):
        optimizer.state[parameter]["master"].copy_(exact)
    take_steps(optimizer, held)
    for parameter, theirs, before in zip(held, expected, start, strict=True):
        torch.testing.assert_close(optimizer.master(parameter), theirs.detach(), rtol=1e-5, atol=1e-6)
        assert torch.equal(parameter, theirs.bfloat16())
        assert parameter.dtype == torch.bfloat16
        assert not torch.equal(parameter.float(), before)


def test_steps_below_the_resolution_of_bfloat16_add_up() -> None:
    weight = Parameter(torch.full((8,), 100.0).bfloat16())
    optimizer = AdamW([weight], lr=0.01, weight_decay=0.0)
    for _ in range(100):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert weight.tolist() == [99.0] * 8  # one step of 0.01 alone would be rounded away


def test_float32_gradients_of_bfloat16_weights() -> None:
    weight = Parameter(torch.zeros(4, 4).bfloat16())
    weight.grad_dtype = torch.float32
    for _ in range(3):
        (weight * 0.001).sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    AdamW([weight], lr=0.5).step()
    assert weight.tolist() == [[-0.5] * 4] * 4


def test_gradient_scale_multiplies_and_leaves_gradients_alone() -> None:
    scaled, plain = parameters(), parameters()
    ours, theirs = AdamW(scaled, **OPTIONS), AdamW(plain, **OPTIONS)
    for a, b, gradient in zip(scaled, plain, gradients(0), strict=True):
        a.grad, b.grad = gradient * 8, gradient.clone()
    before = scaled[1].grad.clone()
    ours.step(gradient_scale=1 / 8)
    theirs.step()
    assert torch.equal(scaled[1].grad, before)
    for a, b in zip(scaled, plain, strict=True):
        assert torch.equal(a, b)


def test_gradients_may_lie_anyhow_and_be_missing() -> None:
    held = [Parameter(torch.zeros(4, 6)), Parameter(torch.ones(3))]
    held[0].grad = torch.arange(24.0).view(6, 4).T
    AdamW(held, lr=0.1, weight_decay=0.0).step()
    assert held[0][0, 0] == 0  # its gradient is 0
    assert (held[0].flatten()[1:] < -0.09).all()
    assert held[1].tolist() == [1.0] * 3


def test_state_survives_saving() -> None:
    straight, before = parameters(torch.bfloat16), parameters(torch.bfloat16)
    whole = AdamW(straight, **OPTIONS)
    take_steps(whole, straight)
    first = AdamW(before, **OPTIONS)
    take_steps(first, before, 10)
    state = copy.deepcopy(first.state_dict())
    after = [Parameter(parameter.detach().clone()) for parameter in before]
    second = AdamW(after, **OPTIONS)
    second.load_state_dict(state)
    assert second.state[after[0]]["exp_avg"].dtype == torch.float32
    for step in range(10, 20):
        for parameter, gradient in zip(after, gradients(step), strict=True):
            parameter.grad = gradient.to(parameter.dtype)
        second.step()
    for a, b in zip(straight, after, strict=True):
        assert torch.equal(whole.master(a), second.master(b))


def test_state_tensors_name_everything() -> None:
    held = parameters(torch.bfloat16)
    tensors = AdamW(held).state_tensors({parameter: f"weight {at}" for at, parameter in enumerate(held)})
    assert set(tensors) == {
        f"weight {at}.{kind}" for at in range(3) for kind in ("master", "exp_avg", "exp_avg_sq", "step")
    }
    tensors["weight 1.master"].zero_()
    assert AdamW(held).master(held[1]).abs().sum() > 0


@pytest.mark.parametrize("wrong", [{"lr": -1}, {"betas": (1.0, 0.9)}, {"eps": 0}, {"weight_decay": -0.1}])
def test_what_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AdamW(parameters(), **wrong)
