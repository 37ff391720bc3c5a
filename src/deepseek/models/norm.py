"""RMSNorm (arXiv 1910.07467)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from deepseek.models.row_blocks import row_blocks


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
    """Shape suffixes: n rows, m size. Only x and a number a row wait for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_m: Tensor, eps: float) -> Tensor:
        x_nm = x.reshape(-1, x.shape[-1])
        scale_n1 = x_nm.new_empty(len(x_nm), 1, dtype=torch.float32)
        output_nm = torch.empty_like(x_nm)
        for rows in row_blocks(x_nm):
            wide_nm = x_nm[rows].float()
            length_n1 = torch.linalg.vector_norm(wide_nm, dim=-1, keepdim=True)
            scale_n1[rows] = length_n1.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
            torch.mul((wide_nm * scale_n1[rows]).to(x.dtype), weight_m, out=output_nm[rows])
        ctx.save_for_backward(x_nm, weight_m, scale_n1)
        return output_nm.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x_nm, weight_m, scale_n1 = ctx.saved_tensors
        wide_weight_m = weight_m.float()
        grad_weight_m = torch.zeros_like(wide_weight_m)
        output_nm, grad_nm = torch.empty_like(x_nm), grad.reshape(x_nm.shape)
        for rows in row_blocks(x_nm):
            normal_nm, wide_nm = x_nm[rows].float() * scale_n1[rows], grad_nm[rows].float()
            product_nm = wide_nm * normal_nm
            grad_weight_m += product_nm.sum(dim=0)
            along_n1 = product_nm.mul_(wide_weight_m).sum(dim=-1, keepdim=True).div_(-x_nm.shape[1])
            output_nm[rows] = (wide_nm * wide_weight_m).addcmul_(normal_nm, along_n1).mul_(scale_n1[rows])
        return output_nm.view_as(grad), grad_weight_m.to(weight_m.dtype), None
