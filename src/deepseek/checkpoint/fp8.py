"""FP8 as DeepSeek-V3 stores it: E4M3 codes, and one float32 factor for each block of 128 x 128 (weight_scale_inv)."""

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.tensor import RawTensor
from deepseek.errors import CheckpointError

_ROWS = 128  # decoded at a time when there are no blocks


def _e4m3_values() -> NDArray[np.float32]:
    """The 256 values of E4M3 "FN": bias 7, subnormals, no infinity, NaN only where all exponent and mantissa bits."""
    code = np.arange(256)
    sign = np.where(code & 0x80, -1.0, 1.0)
    exponent, mantissa = (code >> 3) & 0xF, code & 0x7
    normal = (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    subnormal = mantissa / 8 * 2.0**-6
    values = sign * np.where(exponent == 0, subnormal, normal)
    values[(code & 0x7F) == 0x7F] = np.nan
    return values.astype(np.float32)


E4M3_VALUES = _e4m3_values()


def scale_shape(shape: tuple[int, ...], block: tuple[int, int]) -> tuple[int, ...]:
    """Shape of the factors of a weight: its last two dimensions in blocks, the last of each partial."""
    *leading, rows, columns = shape
    return (*leading, -(-rows // block[0]), -(-columns // block[1]))


def scale_values(scale: RawTensor) -> NDArray[np.float32]:
    """The factors. Raises CheckpointError unless they are F32, finite and not negative."""
    if scale.dtype != "F32":
        raise CheckpointError(f"FP8 scales must be F32, not {scale.dtype}")
    values = scale.data.view("<f4").reshape(scale.shape)
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise CheckpointError(
            f"the FP8 scale at {list(where)} is {values[where]}; scales are finite and not negative, so the file is "
            "damaged: fetch it again"
        )
    return values


def dequantize_e4m3(tensor: RawTensor) -> NDArray[np.float32]:
    """Values times the factor of their block, in the tensor's shape; without a scale, the plain values."""
    columns = tensor.shape[-1] if tensor.shape else 1
    codes = tensor.data.reshape(-1, columns)
    result = np.empty(codes.shape, np.float32)
    if tensor.scale is None:
        for start in range(0, len(codes), _ROWS):
            rows = slice(start, start + _ROWS)
            result[rows] = E4M3_VALUES[codes[rows]]
        return result.reshape(tensor.shape)
    assert tensor.scale_block is not None, "a scale without its block"
    assert len(tensor.shape) == 2, "block scales belong to matrices"
    assert tensor.scale.shape == scale_shape(tensor.shape, tensor.scale_block), "scale of another shape"
    block_rows, block_columns = tensor.scale_block
    for index, factors in enumerate(scale_values(tensor.scale)):
        rows = slice(index * block_rows, (index + 1) * block_rows)
        wide = np.repeat(factors, block_columns)[:columns]
        np.multiply(E4M3_VALUES[codes[rows]], wide, out=result[rows])
    return result
