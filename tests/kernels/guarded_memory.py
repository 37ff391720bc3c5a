"""Runs kernels on memory that ends at a page nobody may touch: a read or write beyond it ends the process. A script.

Buffers are whole lines of 64 bytes, as everything is in the engine's memory and in a packed store.
"""

import ctypes
import mmap
from typing import Any

import numpy as np

import kernel_plans

PAGE = mmap.PAGESIZE
_kept: list[mmap.mmap] = []


def guarded(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Zeros whose last line is the last of a page; the page after it is closed."""
    count = int(np.prod(shape))
    size = -(-count * np.dtype(dtype).itemsize // 64) * 64
    pages = -(-size // PAGE)
    memory = mmap.mmap(-1, (pages + 1) * PAGE)
    _kept.append(memory)
    raw = np.frombuffer(memory, np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(raw.ctypes.data + pages * PAGE), PAGE, 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    return raw[pages * PAGE - size : pages * PAGE].view(dtype)[:count].reshape(shape)


kernel_plans.room = guarded

from deepseek.kernels.linear import ADD, GATED  # noqa: E402
from kernel_plans import Plan, floats, random_matrix  # noqa: E402
from paged_attention import Cache, Sequence, Shape  # noqa: E402


def products() -> None:
    rng = np.random.default_rng(0)
    for packing in ("int4-g32", "int4-g128-affine", "int8-g32", "bf16", "f32"):
        for rows, outputs, inputs in ((1, 16, 32), (2, 33, 200), (9, 50, 128), (13, 16, 77)):
            x, norm = floats(rng.standard_normal((rows, inputs))), floats(rng.standard_normal(inputs))
            first, second = (random_matrix(rng, packing, rows=outputs, inputs=inputs) for _ in range(2))
            bias = floats(rng.standard_normal(outputs))
            plan = Plan(rows)
            activations = plan.prepare(x, first, norm=norm, low=True)
            plan.linear(activations, first, mode=ADD, bias=bias)
            plan.linear(activations, first, second=second, mode=GATED, bias=bias, second_bias=bias)
            plan.run(3)


def attention() -> None:
    for shape in (
        Shape(heads=6, key_heads=2, size=80),
        Shape(heads=7, key_heads=1, size=12, window=5, normed=True),
        Shape(heads=7, key_heads=1, size=80, code_bytes=1),
    ):
        sequence = Sequence.random(np.random.default_rng(1), shape, 70, [2, 0, 1])
        Cache(shape, 3).step([(sequence, 0, 70)], threads=3)


if __name__ == "__main__":
    products()
    attention()
    print("within bounds")
