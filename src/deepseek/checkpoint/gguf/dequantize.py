"""GGUF's block types to float32, bit for bit as llama.cpp's reference (ggml-quants.c) and the `gguf` package do it.

Each function takes blocks as rows of bytes and fills rows of as many floats. Quants are named `q`, scales `d`,
minimums `m`.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.dtypes import byte_size, dtype_of
from deepseek.checkpoint.gguf.bits import FOUR, fifth_bits, half, k_nibbles, k_scales, nibbles, q5_k_codes
from deepseek.checkpoint.tensor import Bytes
from deepseek.errors import CheckpointError

Floats = NDArray[np.float32]
_CHUNK_ELEMENTS = 1 << 18  # decoded at a time, so that the working set stays in the cache


def dequantize(dtype: str, data: Bytes, shape: tuple[int, ...]) -> Floats:
    """Decode a whole tensor of shape `shape` into a new float32 array. NaN and infinities pass through.

    dtype: a block type; `decode.to_float32` takes every type. Raises CheckpointError when it is none, or when `data`
    is not exactly the tensor's bytes.
    """
    if dtype not in _DECODERS:
        raise CheckpointError(f"{dtype} is not a block type of GGUF; known are {', '.join(_DECODERS)}")
    if data.size != byte_size(dtype, shape):
        raise CheckpointError(
            f"{data.size} bytes are not a {dtype} tensor of shape {list(shape)}, which has {byte_size(dtype, shape)}"
        )
    kind = dtype_of(dtype)
    blocks = data.reshape(-1, kind.block_bytes)
    out = np.empty((len(blocks), kind.block_elements), np.float32)
    step = _CHUNK_ELEMENTS // kind.block_elements
    with np.errstate(all="ignore"):
        for start in range(0, len(blocks), step):
            _DECODERS[dtype](blocks[start : start + step], out[start : start + step])
    return out.reshape(shape)


def check_scales(dtype: str, data: Bytes, where: str) -> None:
    """Raises CheckpointError, beginning with `where`, when a block's scale or minimum is NaN or infinite.

    Types without blocks have no scales and pass.
    """
    offsets = _SCALE_OFFSETS.get(dtype, ())
    if not offsets:
        return
    blocks = data.reshape(-1, dtype_of(dtype).block_bytes)
    for offset in offsets:
        scales = np.ascontiguousarray(blocks[:, offset : offset + 2]).view(np.uint16)
        broken = (scales & 0x7C00) == 0x7C00
        if broken.any():
            raise CheckpointError(
                f"{where}: block {int(broken.argmax()):,} of {len(blocks):,} has a scale that is NaN or infinite; "
                "the file is damaged: fetch or convert it again"
            )


def _q8_0(blocks: Bytes, out: Floats) -> None:
    np.multiply(blocks[:, 2:].view(np.int8), half(blocks, 0), out=out)


def _q4_0(blocks: Bytes, out: Floats) -> None:
    q = nibbles(blocks[:, 2:]).view(np.int8) - np.int8(8)
    np.multiply(half(blocks, 0), q, out=out)


def _q4_1(blocks: Bytes, out: Floats) -> None:
    np.multiply(half(blocks, 0), nibbles(blocks[:, 4:]), out=out)
    out += half(blocks, 2)


def _q5_0(blocks: Bytes, out: Floats) -> None:
    q = (nibbles(blocks[:, 6:]) | fifth_bits(blocks, 2)).view(np.int8) - np.int8(16)
    np.multiply(half(blocks, 0), q, out=out)


def _q5_1(blocks: Bytes, out: Floats) -> None:
    q = nibbles(blocks[:, 8:]) | fifth_bits(blocks, 4)
    np.multiply(half(blocks, 0), q, out=out)
    out += half(blocks, 2)


def _k_affine(blocks: Bytes, q: Bytes, out: Floats) -> None:
    d, m = k_scales(blocks)
    groups = out.reshape(len(blocks), 8, 32)
    np.multiply(d, q.reshape(groups.shape), out=groups)
    groups -= m


def _q4_k(blocks: Bytes, out: Floats) -> None:
    _k_affine(blocks, k_nibbles(blocks[:, 16:], 32), out)


def _q5_k(blocks: Bytes, out: Floats) -> None:
    _k_affine(blocks, q5_k_codes(blocks), out)


def _q6_k(blocks: Bytes, out: Floats) -> None:
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts) & np.uint8(3)
    q = k_nibbles(blocks[:, :128], 64) | (high.reshape(len(blocks), 256) << FOUR)
    signed = (q.view(np.int8) - np.int8(32)).reshape(-1, 16, 16)
    d = half(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    np.multiply(d[:, :, None], signed, out=out.reshape(signed.shape))


_DECODERS: dict[str, Callable[[Bytes, Floats], None]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}

_SCALE_OFFSETS = {  # bytes from a block's beginning to its fp16 scale and minimum
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
}
