"""Raw tensors to float32 and back. Nothing here runs unless asked: executors may read raw tensors themselves."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.dtypes import GGUF_BLOCKS, byte_size
from deepseek.checkpoint.fp8 import dequantize_e4m3
from deepseek.checkpoint.tensor import RawTensor
from deepseek.errors import CheckpointError

Floats = NDArray[np.float32]

_CHUNK = 1 << 20  # elements that are converted at a time


def to_float32(tensor: RawTensor) -> Floats:
    """The values, in the tensor's shape. F32 comes back as a read-only view of the file, all else as a new array.

    Beside the result at most a few megabytes are used. Raises CheckpointError for a type that holds no weights and
    for an FP8 scale that is not finite.
    """
    if tensor.dtype in GGUF_BLOCKS:
        from deepseek.checkpoint.gguf.dequantize import dequantize

        return dequantize(tensor.dtype, tensor.data, tensor.shape)
    if tensor.dtype not in _DECODERS:
        known = ", ".join((*_DECODERS, *GGUF_BLOCKS))
        raise CheckpointError(f"a tensor of type {tensor.dtype} cannot be read as floating point; possible are {known}")
    return _DECODERS[tensor.dtype](tensor).reshape(tensor.shape)


def from_float32(array: Floats, dtype: str) -> RawTensor:
    """Round to nearest, ties to even; NaN stays NaN. dtype: F32 (shares the memory of a contiguous array), F16, BF16.

    Raises CheckpointError when a finite value would become infinite, or for another dtype.
    """
    flat = np.ascontiguousarray(array, dtype="<f4").reshape(-1)
    if dtype == "F32":
        return RawTensor(dtype=dtype, shape=array.shape, data=flat.view(np.uint8))
    if dtype not in _ENCODERS:
        raise CheckpointError(f"weights cannot be written as {dtype}; possible are F32, {', '.join(_ENCODERS)}")
    encode, infinity = _ENCODERS[dtype]
    data = np.empty(byte_size(dtype, array.shape), np.uint8)
    codes = data.view("<u2")
    for part in _parts(flat.size):
        codes[part] = encode(flat[part])
        overflow = ((codes[part] & 0x7FFF) == infinity) & np.isfinite(flat[part])
        if overflow.any():
            value = flat[part][overflow][0]
            raise CheckpointError(f"the value {value:g} is too large for {dtype}; write F32 (or BF16) instead")
    return RawTensor(dtype=dtype, shape=array.shape, data=data)


def _parts(size: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, size, _CHUNK))


def _decode_f32(tensor: RawTensor) -> Floats:
    return tensor.data.view("<f4")


def _decode_f16(tensor: RawTensor) -> Floats:
    return tensor.data.view("<f2").astype(np.float32)


def _decode_bf16(tensor: RawTensor) -> Floats:
    bits = tensor.data.view("<u2").astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


def _encode_f16(values: Floats) -> NDArray[np.uint16]:
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is reported by value
        return values.astype("<f2").view("<u2")


def _encode_bf16(values: Floats) -> NDArray[np.uint16]:
    bits = values.view("<u4")
    rounded = (bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16
    quiet_nan = (bits >> 16) | 0x40  # rounding could carry a NaN's payload away
    return np.where(np.isnan(values), quiet_nan, rounded).astype("<u2")


_DECODERS: dict[str, Callable[[RawTensor], Floats]] = {
    "F32": _decode_f32,
    "F16": _decode_f16,
    "BF16": _decode_bf16,
    "F8_E4M3": dequantize_e4m3,
}

# Each with the code of its positive infinity.
_ENCODERS: dict[str, tuple[Callable[[Floats], NDArray[np.uint16]], int]] = {
    "F16": (_encode_f16, 0x7C00),
    "BF16": (_encode_bf16, 0x7F80),
}
