"""Values to the engine's layout, fast: four codes move as one 32-bit word. `packing.pack_codes` is the slow twin.

A step of 64 bytes is 16 words, one a row, in every packing. So a matrix is (rows, words) turned to (words, rows) in
blocks of 16 rows, and what differs is only how codes become words.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from deepseek.packing import ROWS, Bytes, Floats, Packing, blocks

Words = NDArray[np.uint32]
Halves = NDArray[np.float16]
T = TypeVar("T", bound=np.generic)

_NOTHING = {"int4": 0x88888888, "int8": 0x80808080}  # a word of zero points


def assemble(packing: Packing, words: Words, scales: Halves | None = None, minimums: Halves | None = None) -> Bytes:
    """The bytes of a matrix. words: (rows, padded inputs / inputs a word); scales, minimums: (rows, groups)."""
    rows, width = words.shape
    count = blocks(rows)
    padding = 0 if packing.affine else _NOTHING.get(packing.kind, 0)
    words = _whole_blocks(words, padding)
    groups = 0 if scales is None else scales.shape[1]
    scale_bytes = packing.scale_bytes(groups * packing.group)
    out = np.empty((count, scale_bytes + width * 64), np.uint8)
    size = groups * ROWS * 2
    out[:, size * (2 if packing.affine else 1) : scale_bytes] = 0
    for place, values in enumerate((scales, minimums)):
        if values is not None:
            at = out[:, place * size : (place + 1) * size].view("<f2").reshape(count, groups, ROWS)
            at[...] = _whole_blocks(values, 0).reshape(count, ROWS, groups).swapaxes(1, 2)
    steps = out[:, scale_bytes:].view("<u4").reshape(count, width, ROWS)
    steps[...] = words.reshape(count, ROWS, width).swapaxes(1, 2)
    return out.reshape(-1)


def words_of_codes(packing: Packing, codes: Bytes) -> Words:
    """(rows, inputs) unsigned codes to words; inputs are padded with the zero point."""
    rows, inputs = codes.shape
    padded = packing.padded_inputs(inputs)
    if padded != inputs:
        whole = np.full((rows, padded), packing.zero_point, np.uint8)
        whole[:, :inputs] = codes
        codes = whole
    words: Words = np.ascontiguousarray(codes).view("<u4")
    if packing.kind == "int8":
        return words
    return words[:, 0::2] | (words[:, 1::2] << np.uint32(4))


def words_of_bf16(patterns: NDArray[np.uint16]) -> Words:
    """(rows, inputs) 16-bit patterns, two a word."""
    rows, inputs = patterns.shape
    if inputs % 2:
        patterns = np.concatenate([patterns, np.zeros((rows, 1), np.uint16)], axis=1)
    return np.ascontiguousarray(patterns).view("<u4")


def words_of_floats(values: Floats) -> Words:
    return np.ascontiguousarray(values, "<f4").view("<u4")


def _whole_blocks(values: NDArray[T], padding: int) -> NDArray[T]:
    rows, width = values.shape
    if rows % ROWS == 0:
        return values
    whole = np.full((blocks(rows) * ROWS, width), padding, values.dtype)
    whole[:rows] = values
    return whole
