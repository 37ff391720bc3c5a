"""Floats to integer codes with one fp16 scale for each row and group of inputs: the symmetric packings.

The value of largest magnitude of a group decides the codes: it gets 127 in int8 and -8, the longer end, in int4, and
only what lies close to it on the other side is clipped. int4 then sets the scale so that no group shrinks. The scale of
least squared error was tried too: the error falls by a tenth, but the perplexity rises (docs/decisions/009).
"""

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.packed.layout import Halves
from deepseek.errors import CheckpointError
from deepseek.packing import Bytes, Floats, Packing

_LEAST, _MOST = np.float32(2.0**-24), np.float32(65504)  # fp16 above 0
_NOTHING = np.float32(1e-30)
_AT_A_TIME = 1 << 16  # elements: a few arrays of them stay in the second-level cache


def quantize(values: Floats, packing: Packing) -> tuple[Bytes, Halves]:
    """(rows, inputs) finite values to codes (rows, padded inputs) and scales (rows, groups).

    Raises CheckpointError for values that no fp16 scale reaches.
    """
    rows, inputs = values.shape
    padded = packing.padded_inputs(inputs)
    if padded != inputs:
        whole = np.zeros((rows, padded), np.float32)
        whole[:, :inputs] = values
        values = whole
    groups = values.reshape(-1, packing.group)
    codes, scales = np.empty(groups.shape, np.uint8), np.empty(len(groups), np.float16)
    step = max(1, _AT_A_TIME // packing.group)
    encode = _int8 if packing.kind == "int8" else _int4
    for start in range(0, len(groups), step):
        part = slice(start, start + step)
        # Turned, so that sums over a group are sums of whole vectors.
        turned = np.ascontiguousarray(groups[part].T)
        turned_codes, scales[part] = encode(turned)
        codes[part] = turned_codes.T
    return codes.reshape(rows, padded), scales.reshape(rows, -1)


def _int8(values: Floats) -> tuple[Bytes, Halves]:
    """(group, n) values to codes of that shape and n scales, as do all below."""
    extreme = _extreme(values)
    scales = _half(extreme / np.float32(127))
    # Near 0, where fp16 is coarse, a scale that was rounded down would clip the largest value.
    short = np.abs(scales.astype(np.float32)) * np.float32(127.5) < np.abs(extreme)
    scales = np.where(short, np.nextafter(scales, np.copysign(np.float16(np.inf), scales)), scales)
    return _codes(_nearest(values, _inverse(scales), 127), 128), scales


def _int4(values: Floats) -> tuple[Bytes, Halves]:
    codes = _nearest(values, _inverse(_half(_extreme(values) / np.float32(-8))), 7)
    # Rounding makes a group shorter along itself. At this scale its product with the values is that of the values.
    length = np.einsum("gn,gn->n", values, values)
    scales = _half(length * _inverse(np.einsum("gn,gn->n", codes, values)))
    return _codes(codes, 8), scales


def _extreme(values: Floats) -> Floats:
    """The value of largest magnitude of each group."""
    high, low = values.max(axis=0), values.min(axis=0)
    extreme: Floats = np.where(high >= -low, high, low)
    return extreme


def _nearest(values: Floats, inverse: Floats, most: int) -> Floats:
    """Signed codes from -most - 1 to most."""
    codes = values * inverse
    np.rint(codes, out=codes)
    return np.clip(codes, -most - 1, most, out=codes)


def _codes(signed: Floats, zero: int) -> Bytes:
    return (signed + np.float32(zero)).astype(np.uint8)


def _half(scales: Floats) -> Halves:
    """Rounded to fp16; a scale that is not 0 stays so."""
    _check_reach(scales)
    size = np.abs(scales)
    return np.where((size > 0) & (size < _LEAST), np.copysign(_LEAST, scales), scales).astype("<f2")


def _check_reach(scales: Floats) -> None:
    if (largest := np.abs(scales).max()) > _MOST:
        raise CheckpointError(
            f"a scale of {largest:g} is needed, more than fp16 holds; keep the weights in bf16 (--quantize bf16)"
        )


def _inverse(values: NDArray[np.float32] | Halves) -> Floats:
    """1 / value; 0 for 0 and for what is far below fp16."""
    wide = values.astype(np.float32)
    return np.divide(np.float32(1), wide, out=np.zeros_like(wide), where=np.abs(wide) > _NOTHING)
