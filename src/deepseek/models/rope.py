"""Rotary position embedding (RoFormer, arXiv 2104.09864) and its long-context scalings.

b batch, t tokens, h heads, d rotated size of a head, r pairs (d / 2).
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from deepseek.config import RopeConfig
from deepseek.families.rope import yarn_mscale


def rotation(rope: RopeConfig, dim: int, position_ids_bt: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines, both (b, t, r) in float32, for heads of which `dim` elements are rotated."""
    frequencies_r = inverse_frequencies(rope, dim, position_ids_bt.device)
    angles_btr = position_ids_bt[..., None].float() * frequencies_r
    factor = attention_factor(rope)
    return angles_btr.cos() * factor, angles_btr.sin() * factor


def rotate(x_bthd: Tensor, cos_btr: Tensor, sin_btr: Tensor, *, interleaved: bool) -> Tensor:
    """Rotate pairs: neighbours (0, 1), (2, 3) ... if interleaved, else (0, d/2), (1, d/2 + 1) ... Order is kept.

    The rotation is done in float32, the result has the type of x.
    """
    cos_bt1r, sin_bt1r = cos_btr[:, :, None], sin_btr[:, :, None]
    wide = x_bthd.float()
    first, second = (wide[..., 0::2], wide[..., 1::2]) if interleaved else wide.chunk(2, dim=-1)
    turned = (first * cos_bt1r - second * sin_bt1r, second * cos_bt1r + first * sin_bt1r)
    joined = torch.stack(turned, dim=-1).flatten(-2) if interleaved else torch.cat(turned, dim=-1)
    return joined.to(x_bthd.dtype)


@lru_cache(maxsize=64)
def inverse_frequencies(rope: RopeConfig, dim: int, device: torch.device) -> Tensor:
    """Radians a token for each pair, (dim / 2,) in float32, after the scaling that `rope` names."""
    exponents_r = torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim
    plain_r = 1.0 / rope.theta**exponents_r
    if rope.scaling == "linear":
        return plain_r / rope.factor
    if rope.scaling == "llama3":
        return _llama3(rope, plain_r)
    if rope.scaling == "yarn":
        return _yarn(rope, plain_r, dim)
    return plain_r


def attention_factor(rope: RopeConfig) -> float:
    """What YaRN multiplies cosines and sines by; 1 for every other scaling."""
    if rope.scaling != "yarn":
        return 1.0
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return yarn_mscale(rope.factor, rope.mscale) / yarn_mscale(rope.factor, rope.mscale_all_dim)
    return yarn_mscale(rope.factor, 1.0)


def softmax_mscale(rope: RopeConfig) -> float:
    """The factor on the softmax scale of latent attention under YaRN: mscale_all_dim's temperature, squared."""
    if rope.scaling != "yarn" or not rope.mscale_all_dim:
        return 1.0
    return yarn_mscale(rope.factor, rope.mscale_all_dim) ** 2


def _llama3(rope: RopeConfig, plain_r: Tensor) -> Tensor:
    """Llama 3.1: slow turns are slowed by `factor`, fast ones left, those between mixed (`apply_scaling`)."""
    length = rope.original_max_position_embeddings
    assert length is not None
    turns_r = length * plain_r / (2 * math.pi)
    mix_r = (turns_r - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    mix_r = mix_r.clamp(0, 1)
    return plain_r * ((1 - mix_r) / rope.factor + mix_r)


def _yarn(rope: RopeConfig, plain_r: Tensor, dim: int) -> Tensor:
    """YaRN (arXiv 2309.00071, section 3.2): pairs of many turns are left, of few turns slowed by `factor`."""
    low, high = _pair_of(rope, dim, rope.beta_fast), _pair_of(rope, dim, rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    high = high + 0.001 if low == high else high
    pairs_r = torch.arange(dim // 2, dtype=torch.float32, device=plain_r.device)
    slowed_r = ((pairs_r - low) / (high - low)).clamp(0, 1)
    return plain_r * (slowed_r / rope.factor + (1 - slowed_r))


def _pair_of(rope: RopeConfig, dim: int, turns: float) -> float:
    """The (fractional) pair that makes so many turns over the original context."""
    length = rope.original_max_position_embeddings
    assert length is not None
    return dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))
