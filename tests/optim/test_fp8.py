"""FP8 as it is emulated: the grid, the blocks, and a model that trains on it."""

import pytest
import torch
from torch.nn import functional as F

from deepseek.models.auto import AutoModel
from deepseek.optim.adamw import AdamW
from deepseek.optim.fp8 import Fp8Training, rounded_blocks, rounded_tiles
from model_cases import CASES


def test_values_that_fp8_holds_stay_as_they_are() -> None:
    exact = torch.arange(-128, 128, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    exact = exact[exact.isfinite()]
    assert torch.equal(rounded_tiles(exact, len(exact)), exact)
    assert torch.equal(rounded_tiles(exact.bfloat16() * 2.0**-9, len(exact)), exact.bfloat16() * 2.0**-9)


def test_each_tile_has_its_own_scale() -> None:
    x = torch.randn(4, 300, generator=torch.Generator().manual_seed(0))
    x[:, 128:256] *= 1e-4
    rounded = rounded_tiles(x)
    assert not torch.equal(rounded, x)
    for part in (slice(0, 128), slice(128, 256), slice(256, 300)):
        error = (rounded[:, part] - x[:, part]).norm() / x[:, part].norm()
        assert error < 0.04  # three bits of mantissa: at most 1/16, 1/40 in the mean
    whole = rounded_tiles(x, 300)
    assert (whole[:, 128:256] - x[:, 128:256]).norm() / x[:, 128:256].norm() > 0.04  # one scale for all loses the small


def test_each_block_has_its_own_scale() -> None:
    weight = torch.randn(2, 130, 200, generator=torch.Generator().manual_seed(0))
    weight[1, :128, :128] *= 2.0**20  # e4m3 alone spans 2^17
    rounded = rounded_blocks(weight)
    assert rounded.shape == weight.shape
    for rows in (slice(0, 128), slice(128, 130)):
        for columns in (slice(0, 128), slice(128, 200)):
            ours, theirs = rounded[1, rows, columns], weight[1, rows, columns]
            assert (ours - theirs).norm() / theirs.norm() < 0.04
    assert torch.equal(rounded_blocks(rounded), rounded)


@pytest.mark.parametrize("value", [0.0, 1e-30, 448.0, 449.0, 1e30])
def test_extremes(value: float) -> None:
    x = torch.tensor([[value, -value]])
    assert torch.allclose(rounded_tiles(x), x, rtol=1 / 16)


def test_bfloat16_holds_every_rounded_value() -> None:
    x = torch.randn(8, 256, generator=torch.Generator().manual_seed(1)) * 0.013
    assert torch.equal(rounded_tiles(x).bfloat16().float(), rounded_tiles(x))


def test_a_model_trains_on_the_grid() -> None:
    ids = torch.randint(0, 67, (4, 16), generator=torch.Generator().manual_seed(0))
    losses = {}
    for fp8 in (False, True):
        model = AutoModel.from_config(CASES["v3-aligned-experts"], dtype="bfloat16", seed=0, std=0.1)
        optimizer = AdamW(model.parameters(), lr=0.01)
        training = Fp8Training(model) if fp8 else None
        losses[fp8] = []
        for _ in range(12):
            if training is not None:
                training.round_weights([optimizer])
            logits = model(ids).logits
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[fp8].append(loss.item())
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.06)
    assert losses[True][-1] < 0.8 * losses[True][0]


def test_what_is_rounded_and_what_is_not() -> None:
    model = AutoModel.from_config(CASES["v3-aligned-experts"], dtype="bfloat16", seed=0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = AdamW(model.parameters())
    training = Fp8Training(model)
    training.round_weights([optimizer])
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert "model.layers.2.mlp.experts.gate_up_proj" in changed
    assert "model.layers.0.self_attn.o_proj.weight" in changed
    assert not any(word in name for name in changed for word in ("embed", "lm_head", "gate.weight", "norm"))
    x = torch.randn(1, 3, 32).bfloat16()
    linear = model.model.layers[0].mlp.gate_proj
    assert torch.equal(linear(x), F.linear(rounded_tiles(x), linear.weight))
    training.close()
    assert torch.equal(linear(x), F.linear(x, linear.weight))


def test_gradients_are_rounded_on_their_way_back() -> None:
    model = AutoModel.from_config(CASES["v3-aligned-experts"], seed=0)
    Fp8Training(model)
    linear = model.model.layers[0].mlp.gate_proj
    x = torch.randn(3, 32, requires_grad=True)
    upstream = torch.randn(3, 40)
    linear(x).backward(upstream)
    torch.testing.assert_close(x.grad, rounded_tiles(upstream) @ linear.weight)
