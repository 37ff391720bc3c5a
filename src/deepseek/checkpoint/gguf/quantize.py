"""float32 to the types that we write, bit for bit as the `gguf` package does it (llama.cpp's reference rounding)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.decode import from_float32
from deepseek.checkpoint.dtypes import dtype_of
from deepseek.checkpoint.gguf.dequantize import check_scales
from deepseek.checkpoint.tensor import Bytes
from deepseek.errors import CheckpointError

Floats = NDArray[np.float32]
PLAIN_TYPES = ("F32", "F16", "BF16")
_CHUNK_ELEMENTS = 1 << 18


def quantize(dtype: str, values: Floats, where: str = "the tensor") -> Bytes:
    """The bytes of `values`, flat. Rows must be whole blocks.

    Raises CheckpointError, beginning with `where`, for finite values that `dtype` cannot hold (float16 ends at 65,504,
    also as a block's scale) and for NaN and infinities in a block type: nothing changes in silence.
    """
    if dtype in PLAIN_TYPES:
        try:
            return from_float32(values, dtype).data
        except CheckpointError as error:
            raise CheckpointError(f"{where}: {error}") from None
    if dtype not in _ENCODERS:
        raise CheckpointError(f"{dtype} cannot be written; choose one of {', '.join((*PLAIN_TYPES, *_ENCODERS))}")
    kind = dtype_of(dtype)
    if values.shape[-1] % kind.block_elements:
        raise CheckpointError(
            f"{where}: rows of {values.shape[-1]} elements are not made of whole {dtype} blocks of "
            f"{kind.block_elements}; write F16"
        )
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, kind.block_elements)
    out = np.empty((len(blocks), kind.block_bytes), np.uint8)
    step = _CHUNK_ELEMENTS // kind.block_elements
    for start in range(0, len(blocks), step):
        out[start : start + step] = _encode(dtype, blocks[start : start + step], where)
    return out.reshape(-1)


def _encode(dtype: str, blocks: Floats, where: str) -> Bytes:
    if not np.isfinite(blocks).all():
        raise CheckpointError(f"{where} holds NaN or infinite values, which {dtype} cannot; the source is damaged")
    with np.errstate(all="ignore"):
        encoded = _ENCODERS[dtype](blocks)
    check_scales(dtype, encoded.reshape(-1), f"{where}, written as {dtype}")
    return encoded


def _inverse(d: Floats) -> Floats:
    inverse: Floats = np.where(d == 0, np.float32(0), np.float32(1) / d)
    return inverse


def _round_away(values: Floats) -> Floats:
    """C's roundf: halves go away from zero."""
    magnitude = np.abs(values)
    floor = np.floor(magnitude)
    rounded: Floats = np.sign(values) * (floor + np.floor(2 * (magnitude - floor)))
    return rounded


def _half_bytes(column: Floats) -> Bytes:
    return column.astype(np.float16).view(np.uint8)


def _pack(q: Bytes) -> Bytes:
    return q[:, :16] | (q[:, 16:] << np.uint8(4))


def _to_nibbles(values: Floats) -> Bytes:
    return np.trunc(values).astype(np.uint8).clip(0, 15)


def _q8_0(blocks: Floats) -> Bytes:
    d = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    q = _round_away(blocks * _inverse(d)).astype(np.int8)
    return np.concatenate([_half_bytes(d), q.view(np.uint8)], axis=1)


def _q4_0(blocks: Floats) -> Bytes:
    """The scale comes from the value of largest magnitude, which lands on -8."""
    at = np.abs(blocks).argmax(axis=1, keepdims=True)
    d = np.take_along_axis(blocks, at, axis=1) / np.float32(-8)
    q = _to_nibbles(blocks * _inverse(d) + np.float32(8.5))
    return np.concatenate([_half_bytes(d), _pack(q)], axis=1)


def _q4_1(blocks: Floats) -> Bytes:
    least = blocks.min(axis=1, keepdims=True)
    d = (blocks.max(axis=1, keepdims=True) - least) / np.float32(15)
    q = _to_nibbles((blocks - least) * _inverse(d) + np.float32(0.5))
    return np.concatenate([_half_bytes(d), _half_bytes(least), _pack(q)], axis=1)


_ENCODERS: dict[str, Callable[[Floats], Bytes]] = {
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
}
