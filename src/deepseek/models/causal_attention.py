"""Causal attention block by block of queries, so that no score is computed which all queries of a block may not see.

For training on a CPU, where PyTorch's own kernel is slower than the products it consists of (2 to 4 times in bfloat16)
and for values of another size than the keys, as in latent attention, falls back to whole matrices of scores; and for
sliding windows, for which it has no kernel. Here only one block of queries has scores at a time, forward and backward;
they have the type of the queries, and the softmax adds in float32.

Shape suffixes: x batch and key-value heads together, r query heads that share one, t tokens, d size of a head, v of a
value, q queries of a block (r times its tokens), s keys from the first that the block sees up to its end.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

KEPT_TOKENS = 1024  # up to so many in a sequence their probabilities are kept for the backward pass, not computed again
BLOCK = 128  # tokens of a block; smaller ones skip more scores, but make products too small


def causal_attention(
    q_xrtd: Tensor, k_xtd: Tensor, v_xtv: Tensor, *, scale: float, window: int | None = None
) -> Tensor:
    """softmax(scale * q k^T) v, every token seeing those up to itself: (x, r, t, v).

    window: how many tokens back, itself included, a token sees; None: all.
    """
    mixed: Tensor = _CausalAttention.apply(q_xrtd, k_xtd, v_xtv, scale, window)  # type: ignore[no-untyped-call]
    return mixed


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_xrtd: Tensor, k_xtd: Tensor, v_xtv: Tensor, scale: float, window: int | None) -> Tensor:
        kept = []
        mixed_xrtv = q_xrtd.new_empty(*q_xrtd.shape[:3], v_xtv.shape[2])
        for block in _blocks(q_xrtd.shape[2], window):
            p_xqs = _probabilities(block.queries(q_xrtd), k_xtd[:, block.keys], block, scale)
            if q_xrtd.shape[2] <= KEPT_TOKENS:
                kept.append(p_xqs)
            mixed_xqv = torch.bmm(p_xqs, v_xtv[:, block.keys])
            mixed_xrtv[:, :, block.start : block.end] = torch.unflatten(mixed_xqv, 1, (-1, block.size))
        ctx.save_for_backward(q_xrtd, k_xtd, v_xtv, *kept)
        ctx.scale, ctx.window = scale, window
        return mixed_xrtv

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_xrtv: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q_xrtd, k_xtd, v_xtv, *kept = ctx.saved_tensors
        grad_q_xrtd = torch.empty_like(q_xrtd)
        grad_k_xtd, grad_v_xtv = (torch.zeros_like(rows, dtype=torch.float32) for rows in (k_xtd, v_xtv))
        for number, block in enumerate(_blocks(q_xrtd.shape[2], ctx.window)):
            q_xqd, k_xsd, v_xsv = block.queries(q_xrtd), k_xtd[:, block.keys], v_xtv[:, block.keys]
            grad_xqv = block.queries(grad_xrtv)
            p_xqs = kept[number] if kept else _probabilities(q_xqd, k_xsd, block, ctx.scale)
            grad_v_xtv[:, block.keys] += torch.bmm(p_xqs.transpose(1, 2), grad_xqv)
            grad_p_xqs = torch.bmm(grad_xqv, v_xsv.transpose(1, 2))
            grad_scores_xqs = torch.ops.aten._softmax_backward_data(grad_p_xqs, p_xqs, -1, p_xqs.dtype)
            grad_q_xqd = torch.bmm(grad_scores_xqs, k_xsd).mul_(ctx.scale)
            grad_q_xrtd[:, :, block.start : block.end] = torch.unflatten(grad_q_xqd, 1, (-1, block.size))
            grad_k_xtd[:, block.keys] += torch.bmm(grad_scores_xqs.transpose(1, 2), q_xqd)
        return grad_q_xrtd, grad_k_xtd.mul_(ctx.scale).to(k_xtd.dtype), grad_v_xtv.to(v_xtv.dtype), None, None


@dataclass(frozen=True, slots=True)
class _Block:
    """Queries from `start` to `end`; `first` is the first key that any of them sees."""

    first: int
    start: int
    end: int
    window: int | None

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def keys(self) -> slice:
        return slice(self.first, self.end)

    def queries(self, rows_xrtd: Tensor) -> Tensor:
        """The block's rows, head after head: (x, q, d)."""
        return rows_xrtd[:, :, self.start : self.end].flatten(1, 2)


def _blocks(tokens: int, window: int | None) -> Iterator[_Block]:
    for start in range(0, tokens, BLOCK):
        first = 0 if window is None else max(0, start - window + 1)
        yield _Block(first, start, min(start + BLOCK, tokens), window)


def _probabilities(q_xqd: Tensor, k_xsd: Tensor, block: _Block, scale: float) -> Tensor:
    """Of a block's queries over its keys; 0 where a query would see a later token, or one before its window."""
    scores_xqs = torch.bmm(q_xqd, k_xsd.transpose(1, 2)).mul_(scale)
    scores_xrts = torch.unflatten(scores_xqs, 1, (-1, block.size))
    later_ts = torch.full((block.size, block.size), float("-inf"), dtype=q_xqd.dtype, device=q_xqd.device).triu_(1)
    before = block.start - block.first
    scores_xrts[..., before:].add_(later_ts)
    if block.window is not None and before + block.size > block.window:
        early_ts = torch.ones(scores_xrts.shape[2:], dtype=torch.bool, device=q_xqd.device)
        scores_xrts.masked_fill_(early_ts.tril_(before - block.window), float("-inf"))
    return scores_xqs.softmax(dim=-1)
