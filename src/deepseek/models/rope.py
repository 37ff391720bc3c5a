"""Rotary position embedding (RoFormer, arXiv 2104.09864) in PyTorch; frequencies come from `families.rotation`.

b batch, t tokens, h heads, d rotated size of a head, r pairs (d / 2).
"""

from functools import lru_cache

import torch
from torch import Tensor

from deepseek.config import RopeConfig
from deepseek.families import rotation as shared
from deepseek.families.rotation import attention_factor, softmax_mscale

__all__ = ["attention_factor", "inverse_frequencies", "rotate", "rotation", "softmax_mscale"]


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
    if interleaved:  # a pair is a complex number: one multiplication, several times faster than strided halves
        pairs_bthr = torch.view_as_complex(torch.unflatten(x_bthd.float().contiguous(), -1, (-1, 2)))
        return torch.view_as_real(pairs_bthr * torch.complex(cos_bt1r, sin_bt1r)).flatten(-2).to(x_bthd.dtype)
    first, second = x_bthd.float().chunk(2, dim=-1)
    turned = (first * cos_bt1r - second * sin_bt1r, second * cos_bt1r + first * sin_bt1r)
    return torch.cat(turned, dim=-1).to(x_bthd.dtype)


@lru_cache(maxsize=64)
def inverse_frequencies(rope: RopeConfig, dim: int, device: torch.device) -> Tensor:
    """Radians a token for each pair, (dim / 2,) in float32, after the scaling that `rope` names."""
    return torch.from_numpy(shared.inverse_frequencies(rope, dim)).to(device)
