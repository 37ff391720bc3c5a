"""Causal attention for training on a CPU: block by block of queries, so that half of the scores are never computed.

On this device PyTorch's own kernel is slower than the products it consists of (2 to 4 times in bfloat16), and for
values of another size than the keys, as in latent attention, it falls back to whole matrices of scores. Here only one
block of queries has scores at a time, forward and backward; they have the type of the queries, and the softmax adds in
float32.

Shape suffixes: x batch and key-value heads together, r query heads that share one, t tokens, d size of a head, v of a
value, q queries of a block (r times its tokens), s keys up to the block's end.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

KEPT_TOKENS = 1024  # up to so many in a sequence their probabilities are kept for the backward pass, not computed again
BLOCK = 128  # tokens of a block; smaller ones skip more scores, but make products too small


def causal_attention(q_xrtd: Tensor, k_xtd: Tensor, v_xtv: Tensor, *, scale: float) -> Tensor:
    """softmax(scale * q k^T) v, every token seeing those up to itself: (x, r, t, v)."""
    mixed: Tensor = _CausalAttention.apply(q_xrtd, k_xtd, v_xtv, scale)  # type: ignore[no-untyped-call]
    return mixed


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_xrtd: Tensor, k_xtd: Tensor, v_xtv: Tensor, scale: float) -> Tensor:
        kept = []
        mixed_xrtv = q_xrtd.new_empty(*q_xrtd.shape[:3], v_xtv.shape[2])
        for start, end, q_xqd in _blocks(q_xrtd):
            p_xqs = _probabilities(q_xqd, k_xtd[:, :end], start, scale)
            if q_xrtd.shape[2] <= KEPT_TOKENS:
                kept.append(p_xqs)
            mixed_xqv = torch.bmm(p_xqs, v_xtv[:, :end])
            mixed_xrtv[:, :, start:end] = torch.unflatten(mixed_xqv, 1, (-1, end - start))
        ctx.save_for_backward(q_xrtd, k_xtd, v_xtv, *kept)
        ctx.scale = scale
        return mixed_xrtv

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_xrtv: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q_xrtd, k_xtd, v_xtv, *kept = ctx.saved_tensors
        grad_q_xrtd = torch.empty_like(q_xrtd)
        grad_k_xtd, grad_v_xtv = (torch.zeros_like(rows, dtype=torch.float32) for rows in (k_xtd, v_xtv))
        for start, end, q_xqd in _blocks(q_xrtd):
            k_xsd, v_xsv = k_xtd[:, :end], v_xtv[:, :end]
            grad_xqv = grad_xrtv[:, :, start:end].flatten(1, 2)
            p_xqs = kept[start // BLOCK] if kept else _probabilities(q_xqd, k_xsd, start, ctx.scale)
            grad_v_xtv[:, :end] += torch.bmm(p_xqs.transpose(1, 2), grad_xqv)
            grad_p_xqs = torch.bmm(grad_xqv, v_xsv.transpose(1, 2))
            grad_scores_xqs = torch.ops.aten._softmax_backward_data(grad_p_xqs, p_xqs, -1, p_xqs.dtype)
            grad_q_xqd = torch.bmm(grad_scores_xqs, k_xsd)
            grad_q_xrtd[:, :, start:end] = torch.unflatten(grad_q_xqd.mul_(ctx.scale), 1, (-1, end - start))
            grad_k_xtd[:, :end] += torch.bmm(grad_scores_xqs.transpose(1, 2), q_xqd)
        return grad_q_xrtd, grad_k_xtd.mul_(ctx.scale).to(k_xtd.dtype), grad_v_xtv.to(v_xtv.dtype), None


def _blocks(q_xrtd: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Start and end of each block of tokens, and its queries, head after head."""
    tokens = q_xrtd.shape[2]
    for start in range(0, tokens, BLOCK):
        end = min(start + BLOCK, tokens)
        yield start, end, q_xrtd[:, :, start:end].flatten(1, 2)


def _probabilities(q_xqd: Tensor, k_xsd: Tensor, start: int, scale: float) -> Tensor:
    """Of a block's queries over the keys up to its end; 0 where a query would see a later token."""
    size = k_xsd.shape[1] - start
    later_ts = torch.full((size, size), float("-inf"), dtype=q_xqd.dtype, device=q_xqd.device).triu_(1)
    scores_xqs = torch.bmm(q_xqd, k_xsd.transpose(1, 2)).mul_(scale)
    torch.unflatten(scores_xqs[:, :, start:], 1, (-1, size)).add_(later_ts)
    return scores_xqs.softmax(dim=-1)
