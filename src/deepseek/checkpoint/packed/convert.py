"""A weight's bytes as the store keeps them, piece by piece, so that memory holds a few megabytes of any matrix.

Pieces are independent of each other: they come as calls that threads may run side by side.
"""

from collections.abc import Callable, Iterator
from functools import partial
from math import lcm

import numpy as np

from deepseek.checkpoint.decode import from_float32, to_float32
from deepseek.checkpoint.dtypes import byte_size
from deepseek.checkpoint.packed.choose import RowsType
from deepseek.checkpoint.packed.layout import assemble, words_of_bf16, words_of_codes, words_of_floats
from deepseek.checkpoint.packed.quantize import quantize
from deepseek.checkpoint.packed.repack import can_repack, q8_blocks, repack
from deepseek.checkpoint.tensor import RawTensor
from deepseek.errors import CheckpointError
from deepseek.packing import ROWS, Bytes, Floats, Packing

ALIGNMENT = 64

Piece = Callable[[], Bytes]

_PIECE_ELEMENTS = 1 << 19  # what is worked on at a time stays in the second-level cache


def matrix_pieces(tensor: RawTensor, packing: Packing) -> Iterator[Piece]:
    """The packed matrix, some blocks of rows a piece. A piece raises CheckpointError for values that are not finite."""
    return (partial(_matrix, rows, packing) for rows in _by_rows(tensor))


def rows_pieces(tensor: RawTensor, dtype: RowsType) -> Iterator[Piece]:
    """Row after row, as they are or in another type."""
    return (partial(_rows, rows, dtype) for rows in _by_rows(tensor))


def vector_pieces(tensor: RawTensor) -> Iterator[Piece]:
    """float32, with zeros up to a multiple of 64 bytes."""
    yield partial(_vector, tensor)


def vector_bytes(elements: int) -> int:
    return -(-elements * 4 // ALIGNMENT) * ALIGNMENT


def rows_bytes(rows: int, inputs: int, dtype: RowsType) -> int:
    return byte_size(dtype.upper(), (rows, inputs))


def _by_rows(tensor: RawTensor) -> Iterator[RawTensor]:
    """Whole blocks of rows; those of FP8 are cut where its own blocks end."""
    rows, inputs = tensor.shape
    step = lcm(ROWS, tensor.scale_block[0]) if tensor.scale_block else ROWS
    step *= max(1, _PIECE_ELEMENTS // (step * inputs))
    for start in range(0, rows, step):
        yield tensor.slice_first(start, min(start + step, rows))


def _matrix(tensor: RawTensor, packing: Packing) -> Bytes:
    if can_repack(tensor.dtype, packing):
        return repack(tensor, packing)
    if packing.kind == "bf16":
        return assemble(packing, words_of_bf16(_as_type(tensor, "BF16").view("<u2").reshape(tensor.shape)))
    values = _finite(to_float32(tensor))
    if packing.kind == "f32":
        return assemble(packing, words_of_floats(values))
    codes, scales = quantize(values, packing)
    return assemble(packing, words_of_codes(packing, codes), scales)


def _rows(tensor: RawTensor, dtype: RowsType) -> Bytes:
    if tensor.dtype == "Q5_0" and dtype == "q8_0":
        return q8_blocks(tensor)
    return _as_type(tensor, dtype.upper())


def _vector(tensor: RawTensor) -> Bytes:
    values = _as_type(tensor, "F32")
    out = np.zeros(vector_bytes(tensor.elements), np.uint8)
    out[: values.size] = values
    return out


def _as_type(tensor: RawTensor, dtype: str) -> Bytes:
    """The bytes in a plain type; blocks of GGUF only as they are."""
    if tensor.scale is None and dtype not in ("F32", "F16", "BF16"):
        assert tensor.dtype == dtype, (tensor.dtype, dtype)
        return tensor.data
    values = _finite(to_float32(tensor))
    return tensor.data if tensor.dtype == dtype else from_float32(values, dtype).data


def _finite(values: Floats) -> Floats:
    if not np.isfinite(values).all():
        raise CheckpointError("holds NaN or infinite values, so the checkpoint is damaged; fetch it again")
    return values
