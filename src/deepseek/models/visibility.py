"""Which keys each query may see: causality, padding, sliding windows and the choice of the sparse-attention indexer.

b batch, t queries, s keys (those cached and those of this call).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Visibility:
    """mask_bts: True where a query sees a key; None: everything, or with is_causal the square lower triangle.

    window: with is_causal, how many slots back, itself included, a query sees.
    """

    mask_bts: Tensor | None
    is_causal: bool = False
    window: int | None = None

    def as_mask(self, batch: int, queries: int, keys: int, device: torch.device) -> Tensor:
        """The same as an explicit (b, t, s) mask."""
        if self.mask_bts is not None:
            return self.mask_bts
        seen_ts = torch.ones(queries, keys, dtype=torch.bool, device=device)
        if self.is_causal:
            seen_ts = seen_ts.tril_()
        if self.window is not None:
            seen_ts = seen_ts.triu_(1 - self.window)
        return seen_ts.expand(batch, -1, -1)


def visibility(
    attention_mask_bs: Tensor | None, *, queries: int, past: int, window: int | None, device: torch.device
) -> Visibility:
    """Queries are the last `queries` of past + queries slots and see slots up to their own.

    attention_mask_bs: True for tokens, False for padding. window: how many slots back, itself included, a query sees.
    A padding slot sees itself alone, so that no row of the softmax is empty.
    """
    keys = past + queries
    if window is not None and window >= keys:
        window = None
    if attention_mask_bs is None:
        if queries == 1 and window is None:
            return Visibility(None)
        if past == 0:
            return Visibility(None, is_causal=True, window=window)
    query_t1 = torch.arange(past, keys, device=device)[:, None]
    key_1s = torch.arange(keys, device=device)[None, :]
    seen_ts = key_1s <= query_t1
    if window is not None:
        seen_ts = seen_ts & (key_1s > query_t1 - window)
    if attention_mask_bs is None:
        return Visibility(seen_ts[None])
    seen_bts = seen_ts & attention_mask_bs[:, None, :].bool()
    return Visibility(seen_bts | (key_1s == query_t1))
