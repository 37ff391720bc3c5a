"""RawTensor: a weight as it lies in its file, never widened unless asked."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.dtypes import DTYPES, byte_size

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

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def slice_first(self, start: int, stop: int) -> "RawTensor":
        """Entries start to stop of the first dimension, sharing the bytes.

        Rows of a block-scaled matrix can only be cut between blocks (or at its end).
        """
        assert 0 <= start <= stop <= self.shape[0], (start, stop, self.shape)
        shape = (stop - start, *self.shape[1:])
        entry = byte_size(self.dtype, (1, *self.shape[1:]))
        scale = self._scale_of(start, stop)
        return replace(self, shape=shape, data=self.data[start * entry : stop * entry], scale=scale)

    def entry(self, index: int) -> "RawTensor":
        """One entry of the first dimension, which falls away, sharing the bytes."""
        cut = self.slice_first(index, index + 1)
        scale = None if cut.scale is None else replace(cut.scale, shape=cut.scale.shape[1:])
        return replace(cut, shape=cut.shape[1:], scale=scale)

    def aligned(self) -> "RawTensor":
        """Itself, or a copy where the file does not begin it at a multiple of its element size."""
        step = DTYPES[self.dtype].block_bytes if DTYPES[self.dtype].block_elements == 1 else 1
        scale = None if self.scale is None else self.scale.aligned()
        data = self.data.copy() if self.data.ctypes.data % step else self.data
        return self if data is self.data and scale is self.scale else replace(self, data=data, scale=scale)

    def _scale_of(self, start: int, stop: int) -> "RawTensor | None":
        if self.scale is None:
            return None
        if len(self.shape) > 2:  # the scale has the same leading dimensions
            return self.scale.slice_first(start, stop)
        assert self.scale_block is not None
        rows = self.scale_block[0]
        assert start % rows == 0, "cut within an FP8 block"
        assert stop % rows == 0 or stop == self.shape[0], "cut within an FP8 block"
        return self.scale.slice_first(start // rows, -(-stop // rows))
