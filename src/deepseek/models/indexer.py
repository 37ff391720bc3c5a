"""The lightning indexer of DeepSeek sparse attention (V3.2, arXiv 2512.02556, section 2.1).

A few cheap heads score every earlier token for each query, and attention then looks at the best `index_topk` only.
As in Transformers, without the Hadamard rotation (it changes no product) and without FP8. Up to index_topk keys the
result is exactly that of dense attention.

Shape suffixes: b batch, t queries, s keys, i indexer heads, d indexer head size, q query latent, m model size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepseek.config import ModelConfig
from deepseek.models.attention import AttentionInputs
from deepseek.models.cache import LayerCache
from deepseek.models.rope import rotate
from deepseek.models.visibility import Visibility

_KEY_NORM_EPS = 1e-6


class Indexer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        sizes, mla = config.indexer, config.mla
        assert sizes is not None
        assert mla is not None
        assert mla.q_lora_rank is not None
        self.heads, self.head_dim, self.topk = sizes.index_n_heads, sizes.index_head_dim, sizes.index_topk
        self.rope_dim = mla.qk_rope_head_dim
        self.wq_b = nn.Linear(mla.q_lora_rank, self.heads * self.head_dim, bias=False)
        self.wk = nn.Linear(config.hidden_size, self.head_dim, bias=False)
        self.k_norm = nn.LayerNorm(self.head_dim, eps=_KEY_NORM_EPS)
        self.weights_proj = nn.Linear(config.hidden_size, self.heads, bias=False)

    @torch.no_grad()
    def forward(
        self, x_btm: Tensor, c_btq: Tensor, inputs: AttentionInputs, seen: Visibility, cache: LayerCache | None
    ) -> Visibility:
        """`seen`, narrowed to the index_topk best keys of each query. Appends this call's keys to the cache."""
        k_bsd = self.keys(x_btm, inputs)
        if cache is not None:
            k_bsd = cache.index_keys.append(k_bsd)
        batch, queries, keys = x_btm.shape[0], x_btm.shape[1], k_bsd.shape[1]
        if keys <= self.topk:
            return seen
        mask_bts = seen.as_mask(batch, queries, keys, x_btm.device)
        scores_bts = self.scores(x_btm, c_btq, k_bsd, inputs).masked_fill(~mask_bts, float("-inf"))
        # Scores of exactly 0 are common (ReLU), so ties must not depend on the shape: the earlier key wins.
        chosen_btk = scores_bts.sort(dim=-1, descending=True, stable=True).indices[..., : self.topk]
        chosen_bts = torch.zeros_like(scores_bts, dtype=torch.bool).scatter(-1, chosen_btk, True)
        return Visibility(mask_bts & chosen_bts)

    def keys(self, x_btm: Tensor, inputs: AttentionInputs) -> Tensor:
        """(b, t, d), one key for all heads."""
        return self._rotated(self.k_norm(self.wk(x_btm))[:, :, None], inputs).squeeze(2)

    def scores(self, x_btm: Tensor, c_btq: Tensor, k_bsd: Tensor, inputs: AttentionInputs) -> Tensor:
        """Index scores (b, t, s) in float32: sum over heads of w * relu(q . k). Differentiable."""
        q_btid = self._rotated(self.wq_b(c_btq).unflatten(-1, (self.heads, self.head_dim)), inputs)
        products_btis = torch.matmul(q_btid.float(), k_bsd.float().transpose(1, 2)[:, None])
        weights_bti = F.linear(x_btm.float(), self.weights_proj.weight.float()) * self.heads**-0.5
        return torch.einsum("bti,btis->bts", weights_bti, F.relu(products_btis * self.head_dim**-0.5))

    def _rotated(self, x_bthd: Tensor, inputs: AttentionInputs) -> Tensor:
        """Half-split rotation of the leading elements, unlike the interleaved one of the attention around it."""
        rotated, kept = x_bthd[..., : self.rope_dim], x_bthd[..., self.rope_dim :]
        return torch.cat((rotate(rotated, inputs.cos_btr, inputs.sin_btr, interleaved=False), kept), dim=-1)
