"""exp in float64 for softmax: exact to about a unit in the last place; loops over it become vectors."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from deepseek.kernels import compile_cache as compile_cache

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 64
_LOG2_E = 1 / math.log(2)
_LN2_HIGH = 6.93147180369123816490e-01  # 32 bits, so that its product with a small integer is exact
_LN2_LOW = 1.90821492927058770002e-10
_ROUNDER = 1.5 * 2.0**52
_ROUNDER_BITS = int(np.float64(_ROUNDER).view(np.int64))
_EXPONENT_OF_ONE = 1023
_SMALLEST = -708.0
_TAYLOR = tuple(1 / math.factorial(n) for n in range(13))


@intrinsic
def _fma(typingctx: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z, rounded once, in float64."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.fma(*args)

    return types.float64(types.float64, types.float64, types.float64), codegen


@njit(inline="always", nogil=True, error_model="numpy")
def exp_below_one(x: float) -> float:
    """exp of x <= 0; 0 below -708. Adding `_ROUNDER` leaves the power of two in the lowest bits of a float."""
    y = max(x, _SMALLEST)
    shifted = _fma(y, _LOG2_E, _ROUNDER)
    n = shifted - _ROUNDER
    r = _fma(n, -_LN2_LOW, _fma(n, -_LN2_HIGH, y))
    p = _fma(_TAYLOR[12], r, _TAYLOR[11])
    p = _fma(p, r, _TAYLOR[10])
    p = _fma(p, r, _TAYLOR[9])
    p = _fma(p, r, _TAYLOR[8])
    p = _fma(p, r, _TAYLOR[7])
    p = _fma(p, r, _TAYLOR[6])
    p = _fma(p, r, _TAYLOR[5])
    p = _fma(p, r, _TAYLOR[4])
    p = _fma(p, r, _TAYLOR[3])
    p = _fma(p, r, _TAYLOR[2])
    p = _fma(p, r, 1.0)
    p = _fma(p, r, 1.0)
    bits = (np.float64(shifted).view(np.int64) - _ROUNDER_BITS + _EXPONENT_OF_ONE) << 52
    scaled = p * np.int64(bits).view(np.float64)
    return scaled if x >= _SMALLEST else 0.0


@njit(nogil=True, error_model="numpy")
def weigh_block(
    logits: "NDArray[np.float32]", top: float, scale: float, out: "NDArray[np.float64]"
) -> float:  # fmt: skip
    """exp((logit - top) * scale) of up to BLOCK logits into `out`, zeros after them; their sum in a fixed order."""
    for j in range(logits.size):
        out[j] = exp_below_one((np.float64(logits[j]) - top) * scale)
    for j in range(logits.size, BLOCK):
        out[j] = 0.0
    a, b, c, d, e, f, g, h = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(0, BLOCK, 8):
        a += out[j]
        b += out[j + 1]
        c += out[j + 2]
        d += out[j + 3]
        e += out[j + 4]
        f += out[j + 5]
        g += out[j + 6]
        h += out[j + 7]
    return ((a + b) + (c + d)) + ((e + f) + (g + h))
