"""GGUF's blocks to the layout without a change of value: codes move, scales stay as they are.

Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 are exact. The scales of Q4_K and Q5_K have more bits than fp16 and are rounded, by at
most one part in 2,048.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.dtypes import GGUF_BLOCKS
from deepseek.checkpoint.gguf.bits import fifth_bits, k_nibbles, k_scales, nibbles, q5_k_codes
from deepseek.checkpoint.packed.layout import Halves, Words, assemble, words_of_codes
from deepseek.checkpoint.tensor import RawTensor
from deepseek.packing import Bytes, Packing

_LOW, _HIGH, _FOUR = np.uint32(0x0F0F0F0F), np.uint32(0xF0F0F0F0), np.uint32(4)


@dataclass(frozen=True, slots=True)
class _Type:
    """A block type. zero: the code of the value 0, None for affine types. codes: (n, bytes) blocks to (n, elements).

    scales: (n, bytes) to fp16 scales and minimums, each (n, groups of 32).
    """

    bits: int
    zero: int | None
    codes: Callable[[Bytes], Bytes]
    scales: Callable[[Bytes], tuple[Halves, Halves | None]]


def can_repack(dtype: str, packing: Packing) -> bool:
    """Whether `repack` keeps the values of blocks of this type in this packing."""
    kind = _TYPES.get(dtype)
    if kind is None or packing.group != 32 or packing.affine != (kind.zero is None):
        return False
    return packing.kind == "int8" or kind.bits == 4


def repack(tensor: RawTensor, packing: Packing) -> Bytes:
    """The packed bytes of a matrix of GGUF blocks. `can_repack` holds for its type."""
    kind, rows = _TYPES[tensor.dtype], tensor.shape[0]
    stored = GGUF_BLOCKS[tensor.dtype]
    blocks = tensor.data.reshape(-1, stored.block_bytes)
    scales, minimums = kind.scales(blocks)
    if stored.block_elements == 32 and packing.kind == "int4":
        words = _words_of_q4(blocks[:, stored.block_bytes - 16 :]).reshape(rows, -1)
    else:
        words = words_of_codes(packing, _codes(kind, blocks, packing).reshape(rows, -1))
    flat = None if minimums is None else minimums.reshape(rows, -1)
    return assemble(packing, words, scales.reshape(rows, -1), flat)


def q8_blocks(tensor: RawTensor) -> Bytes:
    """Q5_0 as Q8_0: the same values in blocks whose codes are whole bytes."""
    kind = _TYPES["Q5_0"]
    blocks = tensor.data.reshape(-1, GGUF_BLOCKS["Q5_0"].block_bytes)
    out = np.empty((len(blocks), GGUF_BLOCKS["Q8_0"].block_bytes), np.uint8)
    out[:, :2] = blocks[:, :2]
    out[:, 2:] = kind.codes(blocks) - np.uint8(16)
    return out.reshape(-1)


def _codes(kind: _Type, blocks: Bytes, packing: Packing) -> Bytes:
    codes = kind.codes(blocks)
    return codes if kind.zero is None else codes + np.uint8((packing.zero_point - kind.zero) & 0xFF)


def _words_of_q4(quants: Bytes) -> Words:
    """(n, 16) bytes, whose low halves are elements 0 to 15 and high halves 16 to 31, to (n, 4) words of a step each."""
    four = np.ascontiguousarray(quants).view("<u4")
    first, second = four[:, 0::2], four[:, 1::2]
    out = np.empty_like(four)
    out[:, :2] = (first & _LOW) | ((second & _LOW) << _FOUR)
    out[:, 2:] = ((first & _HIGH) >> _FOUR) | (second & _HIGH)
    return out


def _at(blocks: Bytes, offset: int) -> NDArray[np.float16]:
    return np.ascontiguousarray(blocks[:, offset : offset + 2]).view("<f2")


def _scale(blocks: Bytes) -> tuple[Halves, None]:
    return _at(blocks, 0), None


def _scale_and_minimum(blocks: Bytes) -> tuple[Halves, Halves]:
    return _at(blocks, 0), _at(blocks, 2)


def _k_scales_as_halves(blocks: Bytes) -> tuple[Halves, Halves]:
    scales, minimums = k_scales(blocks)
    return scales[:, :, 0].astype("<f2"), (-minimums[:, :, 0]).astype("<f2")


_TYPES = {
    "Q4_0": _Type(4, 8, lambda blocks: nibbles(blocks[:, 2:]), _scale),
    "Q4_1": _Type(4, None, lambda blocks: nibbles(blocks[:, 4:]), _scale_and_minimum),
    "Q5_0": _Type(5, 16, lambda blocks: nibbles(blocks[:, 6:]) | fifth_bits(blocks, 2), _scale),
    "Q5_1": _Type(5, None, lambda blocks: nibbles(blocks[:, 8:]) | fifth_bits(blocks, 4), _scale_and_minimum),
    "Q8_0": _Type(8, 0, lambda blocks: blocks[:, 2:], _scale),
    "Q4_K": _Type(4, None, lambda blocks: k_nibbles(blocks[:, 16:], 32), _k_scales_as_halves),
    "Q5_K": _Type(5, None, q5_k_codes, _k_scales_as_halves),
}
