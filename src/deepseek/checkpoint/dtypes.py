"""How elements lie in a file: one table for the types of safetensors and of GGUF."""

import math
from dataclasses import dataclass

from deepseek.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class DType:
    """`block_elements` neighbours of the last dimension take `block_bytes`; ordinary types have blocks of one."""

    tag: str
    block_elements: int
    block_bytes: int


def _plain(size: int, *tags: str) -> dict[str, DType]:
    return {tag: DType(tag, 1, size) for tag in tags}


# GGUF's quantised blocks (ggml-common.h): 32 or 256 elements with their scales.
GGUF_BLOCKS: dict[str, DType] = {
    tag: DType(tag, elements, size)
    for tag, elements, size in (
        *(("Q4_0", 32, 18), ("Q4_1", 32, 20), ("Q5_0", 32, 22), ("Q5_1", 32, 24), ("Q8_0", 32, 34)),
        *(("Q4_K", 256, 144), ("Q5_K", 256, 176), ("Q6_K", 256, 210), ("Q2_K", 256, 84), ("Q3_K", 256, 110)),
        *(("IQ4_NL", 32, 18), ("IQ4_XS", 256, 136), ("MXFP4", 32, 17), ("TQ2_0", 256, 66)),
    )
}

# The spelling is that of safetensors; GGUF's plain types have the same names there.
PLAIN: dict[str, DType] = {
    **_plain(8, "F64", "I64", "U64", "C64"),
    **_plain(4, "F32", "I32", "U32"),
    **_plain(2, "F16", "BF16", "I16", "U16"),
    **_plain(1, "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
}

DTYPES: dict[str, DType] = {**PLAIN, **GGUF_BLOCKS}


def dtype_of(tag: str) -> DType:
    """Raises CheckpointError for a type that this version does not know."""
    if tag not in DTYPES:
        raise CheckpointError(f"data type {tag[:40]!r} is unknown; known are {', '.join(DTYPES)}")
    return DTYPES[tag]


def byte_size(tag: str, shape: tuple[int, ...]) -> int:
    """Exact bytes of a tensor. Raises CheckpointError when a row is not made of whole blocks."""
    dtype = dtype_of(tag)
    last = shape[-1] if shape else 1
    if last % dtype.block_elements:
        raise CheckpointError(
            f"{tag} stores blocks of {dtype.block_elements} elements, and the last dimension of shape {list(shape)} "
            "is not a multiple of that"
        )
    return math.prod(shape) // dtype.block_elements * dtype.block_bytes
