"""RMSNorm (arXiv 1910.07467)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, computed in float32 whatever the model's type."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        normal: Tensor = _RmsNorm.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]
        return normal


def plain_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Slow twin of `_RmsNorm`, for autograd: its backward pass takes five times as long on a CPU."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


class _RmsNorm(torch.autograd.Function):
    """Shape suffixes: n rows, m size, 1 one element a row. Only x and a number a row wait for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_m: Tensor, eps: float) -> Tensor:
        wide = x.float()
        length_1 = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale_1 = torch.rsqrt(length_1.square() / x.shape[-1] + eps)
        ctx.save_for_backward(x, weight_m, scale_1)
        return weight_m * (wide * scale_1).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight_m, scale_1 = ctx.saved_tensors
        size = x.shape[-1]
        scale_n1 = scale_1.reshape(-1, 1)
        normal_nm = x.reshape(-1, size).float() * scale_n1
        wide_nm, wide_weight_m = grad.reshape(-1, size).float(), weight_m.float()
        product_nm = wide_nm * normal_nm
        along_n1 = (product_nm @ wide_weight_m[:, None]) / -size
        grad_nm = (wide_nm * wide_weight_m).addcmul_(normal_nm, along_n1).mul_(scale_n1)
        return grad_nm.to(x.dtype).view_as(x), product_nm.sum(dim=0).to(weight_m.dtype), None
