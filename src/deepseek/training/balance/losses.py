"""Balance losses of one router over one micro-batch, and how their gradients enter the graph.

With f_e = e / (k n) * tokens given to expert e (1 when even) and P_e the mean over tokens of its score divided by the
token's sum of scores, all three load losses are sums over e of f_e P_e: over a micro-batch (Switch, V2 equation 23),
over each sequence and then the mean (V3 equations 17 to 20), or with f of the whole global batch (Qwen). f counts the
assignments that were made, correction bias included, and has no gradient, so a loss is linear in P: one table of
coefficients holds any mix of the three.

Shape suffixes: n tokens, s sequences, e experts, k chosen experts of a token.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def load_fractions(counts: Tensor) -> Tensor:
    """f from counts of assignments (..., e); 0 where there are none."""
    return counts * (counts.shape[-1] / counts.sum(dim=-1, keepdim=True).clamp(min=1).float())


def load_loss(scores_ne: Tensor, coefficients_se: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over tokens and experts of coefficient * score / sum of the token's scores; and those sums (n,).

    Tokens stand sequence by sequence, equally many each. The sums have no gradient.
    """
    loss, totals_n = _LoadLoss.apply(scores_ne, coefficients_se)  # type: ignore[no-untyped-call]
    return loss, totals_n


def z_loss(logits_ne: Tensor) -> Tensor:
    """The mean over tokens of (log sum exp of the logits) squared."""
    return logits_ne.logsumexp(dim=-1).square().mean()


def attach(weights_nk: Tensor, loss: Tensor, scale: float) -> Tensor:
    """weights_nk unchanged; in the backward pass, scale * loss is differentiated as if it were part of the loss."""
    attached: Tensor = _Attach.apply(weights_nk, loss, scale)  # type: ignore[no-untyped-call]
    return attached


class _LoadLoss(torch.autograd.Function):
    """Two readings of the scores forward, one writing of their gradient backward.

    What backward needs are plain attributes: activation checkpointing drops saved tensors and makes them again, and the
    counts behind the coefficients may have moved by then.
    """

    @staticmethod
    def forward(ctx: Any, scores_ne: Tensor, coefficients_se: Tensor) -> tuple[Tensor, Tensor]:
        scores_ste = torch.unflatten(scores_ne, 0, (coefficients_se.shape[0], -1))
        totals_st1 = scores_ste.sum(dim=-1, keepdim=True)
        losses_st1 = scores_ste @ coefficients_se[..., None] / totals_st1
        ctx.coefficients_s1e, ctx.totals_st1, ctx.losses_st1 = coefficients_se[:, None], totals_st1, losses_st1
        totals_n = totals_st1.flatten()
        ctx.mark_non_differentiable(totals_n)
        return losses_st1.sum(), totals_n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:
        return ((ctx.coefficients_s1e - ctx.losses_st1) * (grad / ctx.totals_st1)).flatten(0, 1), None


class _Attach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights_nk: Tensor, loss: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return weights_nk.view_as(weights_nk)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return grad, grad.new_full((), ctx.scale), None
