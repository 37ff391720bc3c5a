"""Products of pairs of codes and powers of two against NumPy."""

import numpy as np
import pytest
from numba import njit

from deepseek.kernels.attention_tiles import exp2, pair_tile
from deepseek.kernels.vectors import load_f32, store_f32

STEPS = 37


@njit
def _words(codes: int, x: int, out: int, steps: int) -> None:
    pair_tile(2, 6, 2, codes, 64, 128, steps, x, 4 * steps, out, 128, 0, 0, 0)


@njit
def _bytes(codes: int, x: int, out: int, steps: int) -> None:
    pair_tile(1, 3, 2, codes, 32, 64, steps, x, 4 * steps, out, 128, 1, 0, 0)


@njit
def _powers(x: int, out: int, vectors: int) -> None:
    for place in range(vectors):
        store_f32(out + 64 * place, exp2(load_f32(x + 64 * place)))


@pytest.mark.parametrize(("code_bytes", "rows"), [(2, 6), (1, 3)])
def test_pairs_are_multiplied_exactly(code_bytes: int, rows: int) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (STEPS, 32, 2)).astype(f"i{code_bytes}")
    x = rng.integers(-32767, 32768, (rows, STEPS, 2)).astype(np.int16)
    before = rng.integers(-1000, 1000, (rows, 32)).astype(np.int32)
    out = before.copy()
    (_words if code_bytes == 2 else _bytes)(codes.ctypes.data, x.ctypes.data, out.ctypes.data, STEPS)
    expected = np.einsum("skp,rsp->rk", codes.astype(np.int64), x.astype(np.int64))
    np.testing.assert_array_equal(out, expected + (before if code_bytes == 1 else 0))


def test_powers_of_two() -> None:
    x = np.concatenate([np.linspace(-126, 5, 16 * 1000), np.arange(-126, 2), [0.5, -0.5] * 8]).astype(np.float32)
    out = np.zeros_like(x)
    _powers(x.ctypes.data, out.ctypes.data, len(x) // 16)
    np.testing.assert_allclose(out, 2.0 ** x.astype(np.float64), rtol=2.0**-22)
    whole = x == np.rint(x)
    np.testing.assert_array_equal(out[whole], 2.0 ** x[whole])
    far = np.array([-1e30, -np.inf, np.nan, -127] * 4, np.float32)
    _powers(far.ctypes.data, out.ctypes.data, 1)
    np.testing.assert_array_equal(out[:16], np.float32(2.0**-126))
