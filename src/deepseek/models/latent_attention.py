"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1), optionally sparse (V3.2).

What is cached for a token is one latent c (kv_lora_rank) and one rotated key (qk_rope_head_dim) that all heads share.
Two forms give the same result up to rounding:
- naive: keys and values of every head are expanded from the latents (kv_b_proj), then ordinary attention. Cheaper for
  many queries.
- absorbed: kv_b_proj's key half moves into the query and its value half behind the softmax, so that attention is
  multi-query over the latents themselves. Cheaper for few queries over a long cache.

Shape suffixes: b batch, t queries, s keys, h heads, c latent, n unrotated and r rotated part of a query or key,
q query latent, v value, m model (hidden) size.
"""

import torch
from torch import Tensor, nn

from deepseek.config import ModelConfig
from deepseek.models.attention import AttentionInputs, LatentForm, attend
from deepseek.models.cache import LayerCache
from deepseek.models.indexer import Indexer
from deepseek.models.norm import RMSNorm
from deepseek.models.rope import rotate, softmax_mscale
from deepseek.models.visibility import Visibility


class MultiHeadLatentAttention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        mla, model, heads = config.mla, config.hidden_size, config.num_attention_heads
        assert mla is not None
        if mla.q_lora_rank is None:
            self.q_proj = nn.Linear(model, heads * mla.qk_head_dim, bias=False)
        else:
            self.q_a_proj = nn.Linear(model, mla.q_lora_rank, bias=config.attention_bias)
            self.q_a_layernorm = RMSNorm(mla.q_lora_rank, mla.latent_norm_eps)
            self.q_b_proj = nn.Linear(mla.q_lora_rank, heads * mla.qk_head_dim, bias=False)
        latent_and_rope = mla.kv_lora_rank + mla.qk_rope_head_dim
        self.kv_a_proj_with_mqa = nn.Linear(model, latent_and_rope, bias=config.attention_bias)
        self.kv_a_layernorm = RMSNorm(mla.kv_lora_rank, mla.latent_norm_eps)
        self.kv_b_proj = nn.Linear(mla.kv_lora_rank, heads * (mla.qk_nope_head_dim + mla.v_head_dim), bias=False)
        self.o_proj = nn.Linear(heads * mla.v_head_dim, model, bias=config.attention_output_bias)
        self.indexer = Indexer(config) if config.indexer is not None else None
        self.mla = mla
        self.heads = heads
        self.interleaved = config.rope.interleaved
        self.scale = mla.qk_head_dim**-0.5 * softmax_mscale(config.rope)

    def forward(self, x_btm: Tensor, inputs: AttentionInputs, seen: Visibility, cache: LayerCache | None) -> Tensor:
        """(b, t, m) to (b, t, m). Latents of x (and indexer keys) are appended to the cache, if there is one."""
        cos_btr, sin_btr = inputs.cos_btr, inputs.sin_btr
        q_bthn, q_bthr, c_btq = self._queries(x_btm)
        q_bthr = rotate(q_bthr, cos_btr, sin_btr, interleaved=self.interleaved)
        c_bsc, k_bsr = self._latents(x_btm, inputs)
        if cache is not None:
            c_bsc, k_bsr = cache.latents.append(c_bsc), cache.rope_keys.append(k_bsr)
        if self.indexer is not None:
            assert c_btq is not None
            seen = self.indexer(x_btm, c_btq, inputs, seen, cache)
        mix = self._absorbed if _is_absorbed(inputs.latent_form, x_btm.shape[1], cache) else self._naive
        output: Tensor = self.o_proj(mix(q_bthn, q_bthr, c_bsc, k_bsr, seen).flatten(2))
        return output

    def _queries(self, x_btm: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Unrotated and to-be-rotated parts of the queries, and their normalised latent when they have one."""
        c_btq = None
        if self.mla.q_lora_rank is None:
            q_bt = self.q_proj(x_btm)
        else:
            c_btq = self.q_a_layernorm(self.q_a_proj(x_btm))
            q_bt = self.q_b_proj(c_btq)
        q_bthd = q_bt.unflatten(-1, (self.heads, self.mla.qk_head_dim))
        q_bthn, q_bthr = q_bthd.split((self.mla.qk_nope_head_dim, self.mla.qk_rope_head_dim), dim=-1)
        return q_bthn, q_bthr, c_btq

    def _latents(self, x_btm: Tensor, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        """What the cache keeps: the normalised latent (b, t, c) and the rotated shared key (b, t, r)."""
        c_btc, k_btr = self.kv_a_proj_with_mqa(x_btm).split((self.mla.kv_lora_rank, self.mla.qk_rope_head_dim), dim=-1)
        k_bt1r = rotate(k_btr[:, :, None], inputs.cos_btr, inputs.sin_btr, interleaved=self.interleaved)
        return self.kv_a_layernorm(c_btc), k_bt1r.squeeze(2)

    def _naive(self, q_bthn: Tensor, q_bthr: Tensor, c_bsc: Tensor, k_bsr: Tensor, seen: Visibility) -> Tensor:
        kv_bsh = self.kv_b_proj(c_bsc).unflatten(-1, (self.heads, -1))
        k_bshn, v_bshv = kv_bsh.split((self.mla.qk_nope_head_dim, self.mla.v_head_dim), dim=-1)
        k_bshr = k_bsr[:, :, None].expand(-1, -1, self.heads, -1)
        q_bthd, k_bshd = _joined(q_bthn, q_bthr), _joined(k_bshn, k_bshr)
        return attend(q_bthd, k_bshd, v_bshv, seen, scale=self.scale)

    def _absorbed(self, q_bthn: Tensor, q_bthr: Tensor, c_bsc: Tensor, k_bsr: Tensor, seen: Visibility) -> Tensor:
        up_hxc = torch.unflatten(self.kv_b_proj.weight, 0, (self.heads, -1))
        key_up_hnc, value_up_hvc = up_hxc[:, : self.mla.qk_nope_head_dim], up_hxc[:, self.mla.qk_nope_head_dim :]
        q_bthc = torch.einsum("bthn,hnc->bthc", q_bthn, key_up_hnc)
        q_bthd, k_bs1d = torch.cat((q_bthc, q_bthr), dim=-1), torch.cat((c_bsc, k_bsr), dim=-1)[:, :, None]
        mixed_bthc = attend(q_bthd, k_bs1d, c_bsc[:, :, None], seen, scale=self.scale)
        return torch.einsum("bthc,hvc->bthv", mixed_bthc, value_up_hvc)


def _is_absorbed(form: LatentForm, queries: int, cache: LayerCache | None) -> bool:
    """auto: generated tokens (one at a time, over a cache) absorbed, prompts and training naive."""
    return form == "absorbed" or (form == "auto" and queries == 1 and cache is not None)


def _joined(unrotated_bthn: Tensor, rotated_bthr: Tensor) -> Tensor:
    """Both parts of a head, head after head in memory, as attention wants them: (b, t, h, n + r)."""
    return torch.cat((unrotated_bthn.transpose(1, 2), rotated_bthr.transpose(1, 2)), dim=-1).transpose(1, 2)
