"""RawTensor: a weight as it lies in its file, never widened unless asked."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class RawTensor:
    """A weight and how to read it.

    dtype: a tag of `checkpoint.dtypes` (F32, BF16, F8_E4M3, Q4_0 ...). shape: outermost dimension first, in elements.
    data: the bytes, flat, usually a view of the mapped file: valid while its checkpoint is open, never to be written.
    scale: for FP8, the float32 factor of each block of `scale_block` rows and columns (edge blocks are partial).
    """

    dtype: str
    shape: tuple[int, ...]
    data: Bytes
    scale: "RawTensor | None" = None
    scale_block: tuple[int, int] | None = None
