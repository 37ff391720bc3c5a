"""Backward passes of our own equal autograd's over the plain formulas, in float32 closely and in bfloat16 roughly."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deepseek.models import causal_attention as attention_module
from deepseek.models import row_blocks as row_blocks_module
from deepseek.models.attention import attend
from deepseek.models.norm import RMSNorm, plain_rms_norm
from deepseek.models.visibility import Visibility

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.03}
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCE))


def results(run: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """The output and the gradients of fresh leaves."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    output = run(*leaves)
    generator = torch.Generator().manual_seed(9)
    output.backward(torch.randn(output.shape, generator=generator).to(output.dtype))
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert (a.float() - b).abs().max() <= tolerance * max(b.abs().max().item(), 1e-3)


@DTYPES
@pytest.mark.parametrize("rows_in_a_block", [2, 100])
def test_norm_equals_its_slow_twin(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, rows_in_a_block: int) -> None:
    monkeypatch.setattr(row_blocks_module, "ELEMENTS", rows_in_a_block * 24)
    torch.manual_seed(0)
    x, weight = torch.randn(3, 5, 24), 1 + 0.3 * torch.randn(24)

    def fast(x: Tensor, weight: Tensor) -> Tensor:
        norm = RMSNorm(24, 0.02)
        del norm.weight
        norm.weight = weight  # type: ignore[assignment]
        return norm(x)

    expected = results(lambda x, weight: plain_rms_norm(x, weight, 0.02), x, weight)
    assert_close(results(fast, x.to(dtype), weight.to(dtype)), expected, TOLERANCE[dtype])


@DTYPES
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("tokens", [1, 8, 9, 30])
@pytest.mark.parametrize("kept", [0, 30])
@pytest.mark.parametrize("window", [None, 1, 5, 8, 11])
def test_attention_in_blocks_equals_pytorchs(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, groups: int, tokens: int, kept: int, window: int | None
) -> None:
    monkeypatch.setattr(attention_module, "BLOCK", 8)
    monkeypatch.setattr(attention_module, "KEPT_TOKENS", kept)
    torch.manual_seed(0)
    q, k, v = torch.randn(2, tokens, 6, 10), torch.randn(2, tokens, groups, 10), torch.randn(2, tokens, groups, 7)
    seen = Visibility(None, is_causal=True, window=window)
    age_ts = torch.arange(tokens)[:, None] - torch.arange(tokens)
    mask_ts = (age_ts >= 0) & (age_ts < (window or tokens))
    assert torch.equal(seen.as_mask(1, tokens, tokens, q.device)[0], mask_ts)

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        return F.scaled_dot_product_attention(q, k, v, mask_ts, scale=0.4, enable_gqa=True).transpose(1, 2)

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v, seen, scale=0.4)

    found = results(ours, q.to(dtype), k.to(dtype), v.to(dtype))
    assert_close(found, results(plain, q, k, v), TOLERANCE[dtype])
