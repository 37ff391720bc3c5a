"""How the bits of GGUF's blocks lie: codes and scales, before any arithmetic. Blocks are rows of bytes."""

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.tensor import Bytes

Floats = NDArray[np.float32]
FOUR = np.uint8(4)
_LOW_HALF = np.uint8(0x0F)


def half(blocks: Bytes, offset: int) -> Floats:
    """The fp16 at byte `offset` of every block, as a column."""
    return np.ascontiguousarray(blocks[:, offset : offset + 2]).view(np.float16).astype(np.float32)


def nibbles(packed: Bytes) -> Bytes:
    """(n, k) bytes to (n, 2k): all low halves, then all high halves."""
    return np.concatenate([packed & _LOW_HALF, packed >> FOUR], axis=1)


def fifth_bits(blocks: Bytes, offset: int) -> Bytes:
    """32 bits, lowest first, each moved to the place of bit 4."""
    return np.unpackbits(blocks[:, offset : offset + 4], axis=1, bitorder="little") << FOUR


def k_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """Q4_K and Q5_K: eight 6-bit scales and minimums in 12 bytes, times the block's two halves: each (n, 8, 1)."""
    low, middle, high = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.concatenate([low & 0x3F, (high & 0x0F) | ((low >> 2) & 0x30)], axis=1)
    minimums = np.concatenate([middle & 0x3F, (high >> 4) | ((middle >> 2) & 0x30)], axis=1)
    d = half(blocks, 0) * scales.astype(np.float32)
    m = half(blocks, 2) * minimums.astype(np.float32)
    return d[:, :, None], m[:, :, None]


def k_nibbles(packed: Bytes, width: int) -> Bytes:
    """Runs of `width` bytes, each giving its low halves and then its high halves."""
    runs = packed.reshape(len(packed), -1, 1, width)
    shifts = np.array([0, 4], np.uint8).reshape(1, 1, 2, 1)
    return ((runs >> shifts) & _LOW_HALF).reshape(len(packed), -1)


def q5_k_codes(blocks: Bytes) -> Bytes:
    """Q5_K: low halves, and the fifth bits in eight planes; (n, 256)."""
    planes = np.arange(8, dtype=np.uint8).reshape(1, 8, 1)
    fifth = ((blocks[:, None, 16:48] >> planes) & np.uint8(1)) << FOUR
    return k_nibbles(blocks[:, 48:], 32) | fifth.reshape(len(blocks), 256)


def crumbs(packed: Bytes) -> Bytes:
    """Runs of 32 bytes, each giving its lowest two bits, then the next two, and so on: (n, k) to (n, 4k)."""
    runs = packed.reshape(len(packed), -1, 1, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    return ((runs >> shifts) & np.uint8(3)).reshape(len(packed), -1)


def q3_k_scales(blocks: Bytes) -> Floats:
    """Q3_K: sixteen 6-bit scales with an offset of 32 in 12 bytes, times the block's half: (n, 16, 1)."""
    packed = blocks[:, 96:108]
    low = nibbles(packed[:, :8])
    high = np.concatenate([(packed[:, 8:] >> np.uint8(shift)) & np.uint8(3) for shift in (0, 2, 4, 6)], axis=1)
    scales: Floats = ((low | (high << FOUR)).view(np.int8) - np.int8(32)).astype(np.float32)
    return (half(blocks, 108) * scales)[:, :, None]


def iq4_xs_scales(blocks: Bytes) -> Floats:
    """IQ4_XS: eight 6-bit scales with an offset of 32 in 2 + 4 bytes, times the block's half: (n, 8, 1)."""
    low = np.stack([blocks[:, 4:8] & _LOW_HALF, blocks[:, 4:8] >> FOUR], axis=2).reshape(len(blocks), 8)
    shifts = np.array([0, 2, 4, 6], np.uint8)
    high = ((blocks[:, 2:4, None] >> shifts) & np.uint8(3)).reshape(len(blocks), 8)
    scales: Floats = ((low | (high << FOUR)).view(np.int8) - np.int8(32)).astype(np.float32)
    return (half(blocks, 0) * scales)[:, :, None]
