"""Grouped-query attention (arXiv 2305.13245): Llama, Qwen 2 and 3, DeepSeek LLM and DeepSeekMoE.

Shape suffixes: b batch, t queries, s keys, h query heads, g key-value heads, d size of a head, m model (hidden) size.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepseek.config import ModelConfig
from deepseek.models.cache import LayerCache
from deepseek.models.causal_attention import causal_attention
from deepseek.models.norm import RMSNorm
from deepseek.models.rope import rotate
from deepseek.models.visibility import Visibility

LatentForm = Literal["auto", "naive", "absorbed"]


@dataclass(frozen=True, slots=True)
class AttentionInputs:
    """What every layer of one forward pass shares. cos_btr, sin_btr: see `rope.rotation`; (b or 1, t, r).

    latent_form: how latent attention is computed, see `latent_attention`; grouped-query attention ignores it.
    """

    cos_btr: Tensor
    sin_btr: Tensor
    latent_form: LatentForm = "auto"


class GroupedQueryAttention(nn.Module):
    """h query heads share g key-value heads; biases and per-head norms as the config says."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        model, head = config.hidden_size, config.head_dim
        heads, groups = config.num_attention_heads, config.num_key_value_heads
        self.q_proj = nn.Linear(model, heads * head, bias=config.attention_bias)
        self.k_proj = nn.Linear(model, groups * head, bias=config.attention_bias)
        self.v_proj = nn.Linear(model, groups * head, bias=config.attention_bias)
        self.o_proj = nn.Linear(heads * head, model, bias=config.attention_output_bias)
        self.q_norm = RMSNorm(head, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(head, config.rms_norm_eps) if config.qk_norm else None
        self.head_dim = head
        self.interleaved = config.rope.interleaved

    def forward(self, x_btm: Tensor, inputs: AttentionInputs, seen: Visibility, cache: LayerCache | None) -> Tensor:
        """(b, t, m) to (b, t, m). Keys and values of x are appended to the cache, if there is one."""
        q_bthd = self.q_proj(x_btm).unflatten(-1, (-1, self.head_dim))
        k_btgd = self.k_proj(x_btm).unflatten(-1, (-1, self.head_dim))
        v_btgd = self.v_proj(x_btm).unflatten(-1, (-1, self.head_dim))
        if self.q_norm is not None and self.k_norm is not None:
            q_bthd, k_btgd = self.q_norm(q_bthd), self.k_norm(k_btgd)
        q_bthd = rotate(q_bthd, inputs.cos_btr, inputs.sin_btr, interleaved=self.interleaved)
        k_btgd = rotate(k_btgd, inputs.cos_btr, inputs.sin_btr, interleaved=self.interleaved)
        k_bsgd, v_bsgd = k_btgd, v_btgd
        if cache is not None:
            k_bsgd, v_bsgd = cache.keys.append(k_btgd), cache.values.append(v_btgd)
        mixed_bthd = attend(q_bthd, k_bsgd, v_bsgd, seen, scale=self.head_dim**-0.5)
        output: Tensor = self.o_proj(mixed_bthd.flatten(2))
        return output


def attend(q_bthd: Tensor, k_bsgd: Tensor, v_bsgv: Tensor, seen: Visibility, *, scale: float) -> Tensor:
    """softmax(scale * q k^T) v with h a multiple of g: (b, t, h, v). Values may differ in size from keys."""
    # On CPUs PyTorch's kernel is slow backwards, and makes whole matrices of scores where values have another size.
    in_blocks = torch.is_grad_enabled() or k_bsgd.shape[-1] != v_bsgv.shape[-1]
    if seen.is_causal and (seen.window is not None or (q_bthd.device.type == "cpu" and in_blocks)):
        return _attend_in_blocks(q_bthd, k_bsgd, v_bsgv, scale=scale, window=seen.window)
    mask_b1ts = None if seen.mask_bts is None else seen.mask_bts[:, None]
    mixed_bhtv = F.scaled_dot_product_attention(
        q_bthd.transpose(1, 2),
        k_bsgd.transpose(1, 2),
        v_bsgv.transpose(1, 2),
        attn_mask=mask_b1ts,
        is_causal=seen.is_causal,
        scale=scale,
        enable_gqa=q_bthd.shape[2] != k_bsgd.shape[2],
    )
    return mixed_bhtv.transpose(1, 2)


def _attend_in_blocks(q_bthd: Tensor, k_btgd: Tensor, v_btgv: Tensor, *, scale: float, window: int | None) -> Tensor:
    groups = k_btgd.shape[2]
    q_bgrtd = torch.unflatten(q_bthd, 2, (groups, -1)).permute(0, 2, 3, 1, 4)
    k_bgtd, v_bgtv = k_btgd.transpose(1, 2), v_btgv.transpose(1, 2)
    q_xrtd, k_xtd, v_xtv = (rows.flatten(0, 1) for rows in (q_bgrtd, k_bgtd, v_bgtv))
    mixed_xrtv = causal_attention(q_xrtd, k_xtd, v_xtv, scale=scale, window=window)
    return torch.unflatten(mixed_xrtv, 0, (-1, groups)).permute(0, 3, 1, 2, 4).flatten(2, 3)
