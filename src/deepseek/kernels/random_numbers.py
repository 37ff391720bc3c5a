"""Random numbers that are a function of where they are used: Philox4x32-10 (Salmon et al., 2011).

Draw i of sample s of a request with seed k is `uniform(k, s, i)`, whatever was drawn before or runs beside it.
"""

from typing import Any

import numpy as np
from numba import njit

from deepseek.kernels import compile_cache as compile_cache

_MULTIPLY_0 = np.uint64(0xD2511F53)
_MULTIPLY_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint64(0x9E3779B9)
_WEYL_1 = np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


@njit(nogil=True, error_model="numpy")
def philox(key: Any, high: Any, low: Any) -> Any:
    """128 random bits, as two 64-bit halves, of a 64-bit key and a 128-bit counter (high, low). All uint64."""
    k0, k1 = key & _LOW, key >> _HALF
    c0, c1, c2, c3 = low & _LOW, low >> _HALF, high & _LOW, high >> _HALF
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLY_0, c2 * _MULTIPLY_1
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _WEYL_0) & _LOW, (k1 + _WEYL_1) & _LOW
    return c0 | (c1 << _HALF), c2 | (c3 << _HALF)


@njit(nogil=True, error_model="numpy")
def uniform(seed: int, sample: int, draw: int) -> float:
    """A float64 in [0, 1), a multiple of 2**-53."""
    bits, _ = philox(np.uint64(seed), np.uint64(sample), np.uint64(draw))
    return np.float64(bits >> np.uint64(11)) * 2.0**-53
