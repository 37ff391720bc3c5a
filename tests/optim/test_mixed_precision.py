"""Loss scaling and float16 groups, as the documents call them."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

from deepseek.errors import ConfigError
from deepseek.models.auto import AutoModel
from deepseek.models.decoder import Model
from deepseek.optim import MixedPrecisionOptimizer
from deepseek.optim.adamw import AdamW
from deepseek.optim.loss_scale import LossScale
from model_cases import CASES

IDS = torch.randint(0, 67, (4, 16), generator=torch.Generator().manual_seed(0))


def new_model(name: str = "v3-aligned-experts") -> Model:
    return AutoModel.from_config(CASES[name], seed=0, std=0.1)


def loss_of(model: Model) -> Tensor:
    logits = model(IDS).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), IDS[:, 1:].flatten())


def train(model: Model, optimizer: MixedPrecisionOptimizer, steps: int = 12) -> list[float]:
    losses = []
    for _ in range(steps):
        with optimizer.autocast():
            loss = loss_of(model)
        optimizer.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def float32_losses() -> list[float]:
    model = new_model()
    return train(model, MixedPrecisionOptimizer(model.parameters(), fp16_opt_level="O0", lr=0.01))


def test_as_the_document_writes_it() -> None:
    model = new_model()
    optimizer = MixedPrecisionOptimizer(model.parameters(), fp16_groups=[0, 1, 2], loss_scale=128)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    assert optimizer.loss_scale.factor == 128
    assert optimizer.fp16_opt_level == "O2"


@pytest.mark.parametrize("options", [{"loss_scale": 128}, {}, {"fp16_opt_level": "O1"}], ids=str)
def test_float16_training_follows_float32(options: dict[str, Any]) -> None:
    model = new_model()
    optimizer = MixedPrecisionOptimizer(model.parameters(), lr=0.01, **options)
    losses = train(model, optimizer)
    assert losses == pytest.approx(float32_losses(), rel=0.05)
    assert losses[-1] < 0.8 * losses[0]
    assert optimizer.skipped_steps == 0


def test_the_scale_divides_out() -> None:
    weights = [Parameter(torch.tensor([1.0, -2.0])) for _ in range(2)]
    scaled = MixedPrecisionOptimizer([weights[0]], fp16_opt_level="O1", loss_scale=1024, weight_decay=0.0)
    scaled.backward((weights[0] ** 2).sum())
    assert weights[0].grad is not None
    assert weights[0].grad.tolist() == [2048.0, -4096.0]
    scaled.step()
    (weights[1] ** 2).sum().backward()
    AdamW([weights[1]], weight_decay=0.0).step()
    assert torch.equal(*weights)


def test_small_gradients_are_kept_by_the_scale() -> None:
    """1e-8 is below what float16 can hold; scaled by 2^16 it is not."""
    lost, kept = (Parameter(torch.ones(2)) for _ in range(2))
    for weight, scale in ((lost, 1.0), (kept, None)):
        optimizer = MixedPrecisionOptimizer([weight], loss_scale=scale, lr=0.5, weight_decay=0.0, eps=1e-12)
        optimizer.backward((weight.float() * 1e-8).sum())
        optimizer.step()
    assert lost.tolist() == [1.0, 1.0]
    assert kept.tolist() == [0.5, 0.5]


def test_a_step_that_overflows_is_left_out() -> None:
    weight = Parameter(torch.ones(2))
    optimizer = MixedPrecisionOptimizer([weight], lr=0.5)
    optimizer.backward((weight.float() * 1000).sum())  # 1000 * 2^16 is no float16
    optimizer.step()
    optimizer.zero_grad()
    assert weight.tolist() == [1.0, 1.0]
    assert optimizer.skipped_steps == 1
    assert optimizer.loss_scale.factor == 2.0**15
    assert optimizer.state[weight]["step"] == 0


def test_dynamic_scale_falls_and_rises() -> None:
    scale = LossScale(interval=3)
    scale.update(finite=False)
    assert scale.factor == 2.0**15
    for _ in range(3):
        scale.update(finite=True)
    assert scale.factor == 2.0**16
    other = LossScale()
    other.load_state_dict(scale.state_dict())
    assert other.factor == 2.0**16
    fixed = LossScale(128)
    fixed.update(finite=False)
    assert fixed.factor == 128
    assert fixed.is_exhausted


def test_an_unscaled_loss_is_noticed() -> None:
    weight = Parameter(torch.ones(2))
    optimizer = MixedPrecisionOptimizer([weight], loss_scale=128)
    weight.sum().backward()
    with pytest.raises(ConfigError, match=r"call optimizer.backward\(loss\)"):
        optimizer.step()


def test_groups_that_are_named_become_float16() -> None:
    model = new_model()
    MixedPrecisionOptimizer(model.parameters(), fp16_groups=[0, 1])
    types = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert types["model.embed_tokens.weight"] == torch.float16
    assert types["model.layers.2.mlp.experts.down_proj"] == torch.float16
    assert types["model.norm.weight"] == torch.float32


def test_matrices_and_stacks_of_them_go_together() -> None:
    for groups in ([0], [1, 2]):
        with pytest.raises(ConfigError, match="name both or neither"):
            MixedPrecisionOptimizer(new_model().parameters(), fp16_groups=groups)


@pytest.mark.parametrize("groups", [[0, 1], [2]])
def test_mixed_types_train_under_autocast(groups: list[int]) -> None:
    model = new_model()
    optimizer = MixedPrecisionOptimizer(model.parameters(), fp16_groups=groups, loss_scale=128, lr=0.01)
    assert train(model, optimizer) == pytest.approx(float32_losses(), rel=0.05)


def test_groups_of_pytorch_are_taken_as_they_are() -> None:
    held = [Parameter(torch.zeros(3)) for _ in range(2)]
    optimizer = MixedPrecisionOptimizer([{"params": [held[0]]}, {"params": [held[1]], "lr": 7.0}], fp16_groups=[1])
    assert [parameter.dtype for parameter in held] == [torch.float32, torch.float16]
    assert optimizer.param_groups[1]["lr"] == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fp16_groups": [3]}, "there is no group 3; groups are 0 matrices"),
        ({"fp16_opt_level": "O3"}, "must be one of O0, O1, O2"),
        ({"loss_scale": 0}, "loss_scale must be above 0"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MixedPrecisionOptimizer([Parameter(torch.zeros(3))], **options)


def test_clipping_and_state() -> None:
    weight = Parameter(torch.tensor([3.0, 4.0]))
    optimizer = MixedPrecisionOptimizer([weight], loss_scale=8, clip_norm=1.0, lr=1.0)
    optimizer.backward((weight.float() ** 2 / 2).sum())
    optimizer.step()
    mean = optimizer.state[weight]["exp_avg"]
    assert mean.tolist() == pytest.approx([0.06, 0.08], rel=1e-3)  # 0.1 of the gradient (3, 4) clipped to length 1
    other = MixedPrecisionOptimizer([Parameter(torch.ones(2))], loss_scale=8)
    other.load_state_dict(optimizer.state_dict())
    restored = next(iter(other.state.values()))
    assert torch.equal(restored["exp_avg"], mean)
    assert restored["master"].dtype == torch.float32
