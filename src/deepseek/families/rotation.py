"""Rotary frequencies (RoFormer, arXiv 2104.09864) and their long-context scalings, for both executors. Float32 NumPy.

r pairs: half of the rotated elements of a head.
"""

import math

import numpy as np
from numpy.typing import NDArray

from deepseek.config import RopeConfig
from deepseek.families.rope import yarn_attention_factor, yarn_mscale

Floats = NDArray[np.float32]


def inverse_frequencies(rope: RopeConfig, dim: int) -> Floats:
    """Radians a token for each pair, (dim / 2,), after the scaling that `rope` names."""
    exponents_r = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    plain_r = (1.0 / np.float32(rope.theta) ** exponents_r).astype(np.float32)
    if rope.scaling == "linear":
        return (plain_r / np.float32(rope.factor)).astype(np.float32)
    if rope.scaling == "llama3":
        return _llama3(rope, plain_r)
    if rope.scaling == "yarn":
        return _yarn(rope, plain_r, dim)
    return plain_r


def attention_factor(rope: RopeConfig) -> float:
    """What YaRN multiplies cosines and sines by; 1 for every other scaling."""
    return yarn_attention_factor(rope) if rope.scaling == "yarn" else 1.0


def softmax_mscale(rope: RopeConfig) -> float:
    """The factor on the softmax scale of latent attention under YaRN: mscale_all_dim's temperature, squared."""
    if rope.scaling != "yarn" or not rope.mscale_all_dim:
        return 1.0
    return yarn_mscale(rope.factor, rope.mscale_all_dim) ** 2


def rotation_table(rope: RopeConfig, dim: int, positions: int) -> tuple[Floats, Floats]:
    """Cosines and sines of positions 0, 1 ..., both (positions, r)."""
    angles_tr = np.arange(positions, dtype=np.float32)[:, None] * inverse_frequencies(rope, dim)
    factor = np.float32(attention_factor(rope))
    return (np.cos(angles_tr) * factor).astype(np.float32), (np.sin(angles_tr) * factor).astype(np.float32)


def _llama3(rope: RopeConfig, plain_r: Floats) -> Floats:
    """Llama 3.1: slow turns are slowed by `factor`, fast ones left, those between mixed (`apply_scaling`)."""
    length = rope.original_max_position_embeddings
    assert length is not None
    turns_r = length * plain_r / np.float32(2 * math.pi)
    mix_r = (turns_r - rope.low_freq_factor) / np.float32(rope.high_freq_factor - rope.low_freq_factor)
    mix_r = mix_r.clip(0, 1)
    return (plain_r * ((1 - mix_r) / np.float32(rope.factor) + mix_r)).astype(np.float32)


def _yarn(rope: RopeConfig, plain_r: Floats, dim: int) -> Floats:
    """YaRN (arXiv 2309.00071, section 3.2): pairs of many turns are left, of few turns slowed by `factor`."""
    low, high = _pair_of(rope, dim, rope.beta_fast), _pair_of(rope, dim, rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    high = high + 0.001 if low == high else high
    pairs_r = np.arange(dim // 2, dtype=np.float32)
    slowed_r = ((pairs_r - np.float32(low)) / np.float32(high - low)).clip(0, 1)
    scaled_r: Floats = (plain_r * (slowed_r / np.float32(rope.factor) + (1 - slowed_r))).astype(np.float32)
    return scaled_r


def _pair_of(rope: RopeConfig, dim: int, turns: float) -> float:
    """The (fractional) pair that makes so many turns over the original context."""
    length = rope.original_max_position_embeddings
    assert length is not None
    return dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))
