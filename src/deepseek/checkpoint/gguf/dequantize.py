"""GGUF's block types to float32, bit for bit as llama.cpp's reference (ggml-quants.c) and the `gguf` package do it.

Each function takes blocks as rows of bytes and fills rows of as many floats. Quants are named `q`, scales `d`,
minimums `m`.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.dtypes import byte_size, dtype_of
from deepseek.checkpoint.gguf.bits import (
    FOUR,
    crumbs,
    fifth_bits,
    half,
    iq4_xs_scales,
    k_nibbles,
    k_scales,
    nibbles,
    q3_k_scales,
    q5_k_codes,
)
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


def _q2_k(blocks: Bytes, out: Floats) -> None:
    d = half(blocks, 80) * (blocks[:, :16] & np.uint8(0x0F)).astype(np.float32)
    m = half(blocks, 82) * (blocks[:, :16] >> FOUR).astype(np.float32)
    groups = out.reshape(len(blocks), 16, 16)
    np.multiply(d[:, :, None], crumbs(blocks[:, 16:80]).reshape(groups.shape), out=groups)
    groups -= m[:, :, None]


def _q3_k(blocks: Bytes, out: Floats) -> None:
    """Two bits, and a third that is stored inverted: without it the code is 4 less."""
    planes = np.arange(8, dtype=np.uint8).reshape(1, 8, 1)
    third = ((blocks[:, None, :32] >> planes) & np.uint8(1)).reshape(len(blocks), 256)
    q = (crumbs(blocks[:, 32:96]) | (third << np.uint8(2))).view(np.int8) - np.int8(4)
    groups = out.reshape(len(blocks), 16, 16)
    np.multiply(q3_k_scales(blocks), q.reshape(groups.shape), out=groups)


def _iq4_nl(blocks: Bytes, out: Floats) -> None:
    np.multiply(half(blocks, 0), _IQ4[nibbles(blocks[:, 2:])], out=out)


def _iq4_xs(blocks: Bytes, out: Floats) -> None:
    groups = out.reshape(len(blocks), 8, 32)
    np.multiply(iq4_xs_scales(blocks), _IQ4[k_nibbles(blocks[:, 8:], 16)].reshape(groups.shape), out=groups)


def _mxfp4(blocks: Bytes, out: Floats) -> None:
    """The scale is a power of two, half of what the exponent says, since the table holds the values doubled."""
    exponent = blocks[:, :1].astype(np.uint32)
    bits = np.where(exponent < 2, np.uint32(0x00200000) << exponent, (exponent - np.uint32(1)) << np.uint32(23))
    np.multiply(bits.astype(np.uint32).view(np.float32), _E2M1[nibbles(blocks[:, 1:])], out=out)


def _tq2_0(blocks: Bytes, out: Floats) -> None:
    q = crumbs(blocks[:, :64]).view(np.int8) - np.int8(1)
    np.multiply(half(blocks, 64), q, out=out)


# The values that codes of 4 bits stand for: of IQ4, and of MXFP4 (doubled).
_IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
_E2M1 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)

_DECODERS: dict[str, Callable[[Bytes, Floats], None]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
    "MXFP4": _mxfp4,
    "TQ2_0": _tq2_0,
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
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
    "TQ2_0": (64,),
}
