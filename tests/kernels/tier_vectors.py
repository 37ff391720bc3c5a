"""Prints, as JSON, this process's tier and a digest of what the kernels make of fixed numbers. Run as a script.

Few kernels, because each tier compiles them anew: int8 at its extremes, int4 affine, 16-bit activations, gate and up,
brain floats, norms, attention.
"""

import hashlib
import json

import numpy as np

from deepseek.kernels.linear import GATED
from deepseek.kernels.tier import TIER
from deepseek.packing import Packing
from kernel_plans import Plan, floats, integer_matrix, random_matrix
from paged_attention import Cache, Sequence, Shape


def digests() -> dict[str, str]:
    """By what was computed."""
    found = {name: make() for name, make in {
        "extremes": extremes, "int4": int4, "bf16": brain_floats, "attention": attention,
    }.items()}  # fmt: skip
    return {name: hashlib.sha256(np.ascontiguousarray(out + 0.0)).hexdigest() for name, out in found.items()}


def extremes() -> np.ndarray:
    """255 x 127 in every place: pairs that do not fit into 16 bits."""
    x = floats(np.stack([np.ones(64), -np.ones(64), np.tile([1, -1], 32)]))
    codes = np.stack([np.full(64, 255), np.zeros(64), np.tile([255, 0], 32), np.tile([128, 127], 32)]).astype(np.uint8)
    matrix = integer_matrix(Packing("int8", 32), codes, np.full((4, 2), 0.5, np.float16))
    plan = Plan(3)
    out = plan.linear(plan.prepare(x, matrix), matrix)
    plan.run()
    signs = x[:, :64].astype(np.float64)
    np.testing.assert_allclose(out[:, :4], signs @ matrix.values.T.astype(np.float64), rtol=1e-6)
    return out


def int4() -> np.ndarray:
    """Norm, 16-bit activations, gate and up; 9 rows go through every height of a tile."""
    rng = np.random.default_rng(0)
    gate, up = (random_matrix(rng, "int4-g32-affine", rows=40, inputs=200) for _ in range(2))
    x, norm = floats(rng.standard_normal((9, 200))), floats(rng.standard_normal(200))
    plan = Plan(9)
    activations = plan.prepare(x, gate, norm=norm, low=True)
    out = plan.linear(activations, gate, second=up, mode=GATED)
    plan.run(2)
    return out


def brain_floats() -> np.ndarray:
    rng = np.random.default_rng(1)
    matrix, x = random_matrix(rng, "bf16", rows=40, inputs=77), floats(rng.standard_normal((9, 77)))
    plan = Plan(9)
    out = plan.linear(plan.prepare(x, matrix), matrix)
    plan.run()
    return out


def attention() -> np.ndarray:
    found = []
    for code_bytes in (1, 2):
        shape = Shape(heads=6, key_heads=2, size=80, window=45, normed=True, code_bytes=code_bytes)
        sequence = Sequence.random(np.random.default_rng(2), shape, 70, [2, 0, 1], size=3)
        found.append(Cache(shape, 3).step([(sequence, 0, 70)])[0])
    return np.concatenate(found)


if __name__ == "__main__":
    print(json.dumps({"tier": TIER, **digests()}))
