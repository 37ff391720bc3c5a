"""Matrix products of every packing and shape against their NumPy twins, bit for bit."""

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepseek.kernels.linear import ADD, GATED
from deepseek.kernels.plan import FUNCTION, PRIVATE_ROWS
from deepseek.packing import GROUPS, Floats, Packing
from kernel_plans import Matrix, Plan, floats, integer_matrix, random_matrix, room
from kernel_twins import integer_product, product, silu

INTEGER = [Packing(kind, group, affine) for kind in ("int4", "int8") for group in GROUPS for affine in (False, True)]
PACKINGS = [*INTEGER, Packing("bf16"), Packing("f32")]
FEW = [Packing("int4", 32), Packing("int4", 128, True), Packing("int8", 32), Packing("bf16")]

# rows of x, outputs, inputs: one and many, whole and ragged blocks, one block alone, odd counts of blocks.
SHAPES = [(1, 16, 128), (2, 17, 33), (3, 1, 1), (4, 48, 300), (5, 31, 129), (6, 100, 96), (13, 40, 77)]

name_of = pytest.mark.parametrize("packing", PACKINGS, ids=lambda packing: packing.name)
few_of = pytest.mark.parametrize("packing", FEW, ids=lambda packing: packing.name)


def inputs_for(rng: np.random.Generator, rows: int, inputs: int) -> Floats:
    """Rows of very different sizes."""
    return floats(rng.standard_normal((rows, inputs)) * np.exp(2 * rng.standard_normal((rows, 1))))


def run(x: Floats, matrix: Matrix, *, threads: int = 1, low: bool = False, chunk: int = 1) -> Floats:
    """The real outputs of each row; everything beyond must be zero."""
    plan = Plan(len(x))
    out = plan.linear(plan.prepare(x, matrix, low=low), matrix, chunk=chunk)
    assert not plan.run(threads)
    assert not out[:, matrix.rows :].any()
    return out[:, : matrix.rows]


@name_of
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_its_twin(packing: Packing, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(list(shape))
    rows, outputs, inputs = shape
    x, matrix = inputs_for(rng, rows, inputs), random_matrix(rng, packing, rows=outputs, inputs=inputs)
    np.testing.assert_array_equal(run(x, matrix), product(x[:, :inputs], matrix))


@pytest.mark.parametrize("packing", INTEGER, ids=lambda packing: packing.name)
def test_sixteen_bits_of_activations(packing: Packing) -> None:
    """Equal to the twin, and near to float32: 16 bits leave 2**-15 of the largest of a group, not 2**-8."""
    rng = np.random.default_rng(5)
    x, matrix = floats(rng.standard_normal((7, 300))), random_matrix(rng, packing, rows=40, inputs=300)
    for rows in (1, 7):
        coarse, fine = run(x[:rows], matrix), run(x[:rows], matrix, low=True)
        np.testing.assert_array_equal(fine, integer_product(x[:rows, :300], matrix, low=True))
        exact = x[:rows, :300].astype(np.float64) @ matrix.values.T
        assert np.abs(fine - exact).max() < np.abs(coarse - exact).max() / 50


@name_of
def test_add_with_bias(packing: Packing) -> None:
    rng = np.random.default_rng(1)
    x, matrix = inputs_for(rng, 5, 70), random_matrix(rng, packing, rows=50, inputs=70)
    bias, before = floats(rng.standard_normal(50)), floats(rng.standard_normal((5, 50)))
    for given_bias in (None, bias):
        out = before.copy()
        plan = Plan(5)
        plan.linear(plan.prepare(x, matrix), matrix, mode=ADD, bias=given_bias, out=out)
        plan.run()
        sums = product(x[:, :70], matrix)
        if given_bias is not None:
            sums = sums + bias[0, :50]
        np.testing.assert_array_equal(out[:, :50], before[:, :50] + sums)
        assert not out[:, 50:].any()


@name_of
@pytest.mark.parametrize("outputs", [16, 50])
def test_gate_and_up(packing: Packing, outputs: int) -> None:
    rng = np.random.default_rng(2)
    x = inputs_for(rng, 5, 70)
    gate, up = (random_matrix(rng, packing, rows=outputs, inputs=70) for _ in range(2))
    biases = [floats(rng.standard_normal(outputs)) for _ in range(2)]
    for gate_bias, up_bias in ([None, None], biases):
        plan = Plan(5)
        out = plan.linear(plan.prepare(x, gate), gate, second=up, mode=GATED, bias=gate_bias, second_bias=up_bias)
        plan.run()
        sums = [product(x[:, :70], matrix) for matrix in (gate, up)]
        if gate_bias is not None:
            sums = [total + bias[0, :outputs] for total, bias in zip(sums, biases, strict=True)]
        np.testing.assert_array_equal(out[:, :outputs], silu(sums[0]) * sums[1])
        assert not out[:, outputs:].any()


@few_of
def test_a_row_depends_on_nothing_but_itself(packing: Packing) -> None:
    """Not on how many rows go with it, on the team, nor on how work is handed out."""
    rng = np.random.default_rng(3)
    x, matrix = inputs_for(rng, 13, 200), random_matrix(rng, packing, rows=200, inputs=200)
    alone = np.concatenate([run(x[row : row + 1], matrix) for row in range(13)])
    for rows in (2, 3, 5, 6, 7, 12, 13):
        np.testing.assert_array_equal(run(x[:rows], matrix), alone[:rows], err_msg=f"{rows} rows")
    for threads in (2, 3):
        for rows, chunk in ((1, 1), (2, 2), (3, 1), (13, 3), (13, 100)):
            out = run(x[:rows], matrix, threads=threads, chunk=chunk)
            np.testing.assert_array_equal(out, alone[:rows], err_msg=f"{threads} threads, {rows} rows, chunk {chunk}")


@few_of
def test_few_rows_are_read_from_the_threads_own_place(packing: Packing) -> None:
    rng = np.random.default_rng(8)
    x, matrix = inputs_for(rng, 2, 70), random_matrix(rng, packing, rows=50, inputs=70)
    plan = Plan(2)
    activations = plan.prepare(x, matrix)
    out = plan.linear(activations, matrix)
    plan.run(3)
    expected = -2 * out
    mine = slice(PRIVATE_ROWS, 2 * PRIVATE_ROWS)  # of thread 1
    activations.floats[mine] *= -2
    activations.codes[0, mine] *= -1
    activations.factors[0, mine] *= 2
    if packing.affine:
        activations.starts[0, mine].view(np.float32)[...] *= -2
    else:
        activations.starts[0, mine] *= -1
    plan.counters[...] = 0
    call = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(int(plan.table[1, FUNCTION]))
    call(plan.table[1].ctypes.data, 1)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("packing", INTEGER, ids=lambda packing: packing.name)
def test_the_largest_sums(packing: Packing) -> None:
    """Every product at its extreme, 255 x 127 for int8: nothing saturates, nothing overflows, also with many inputs."""
    rng = np.random.default_rng(4)
    inputs, highest = 32_768, 15 if packing.kind == "int4" else 255
    x = floats(np.ones((2, 1)) * rng.choice([-1.0, 1.0], (1, inputs)))
    x[1] = np.abs(x[1])
    codes = np.where(x[0, :inputs] > 0, highest, 0).astype(np.uint8)
    codes = np.stack([codes, highest - codes, np.full(inputs, highest, np.uint8), np.zeros(inputs, np.uint8)])
    scales = np.full((4, packing.groups(inputs)), 0.01, np.float16)
    minimums = np.full_like(scales, -0.5) if packing.affine else None
    matrix = integer_matrix(packing, codes, scales, minimums)
    out = run(x, matrix)
    np.testing.assert_array_equal(out, integer_product(x, matrix))
    np.testing.assert_allclose(out, x.astype(np.float64) @ matrix.values.T, rtol=2e-4, atol=0.05)


@few_of
def test_a_lookup_is_what_is_gathered(packing: Packing) -> None:
    rng = np.random.default_rng(6)
    x, matrix = inputs_for(rng, 9, 60), random_matrix(rng, packing, rows=20, inputs=60)
    index = room((4,), np.int32)
    index[:] = (8, 0, 3, 3)
    plan = Plan(4)
    out = plan.linear(plan.prepare(x, matrix, index=index), matrix)
    plan.run(2)
    np.testing.assert_array_equal(out[:, :20], product(x[index, :60], matrix))


@settings(max_examples=40, deadline=None)
@given(
    packing=st.sampled_from(FEW),
    rows=st.integers(1, 14),
    outputs=st.integers(1, 90),
    inputs=st.integers(1, 200),
    threads=st.integers(1, 3),
    chunk=st.integers(1, 4),
    low=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_shape(
    packing: Packing, rows: int, outputs: int, inputs: int, threads: int, chunk: int, low: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, matrix = inputs_for(rng, rows, inputs), random_matrix(rng, packing, rows=outputs, inputs=inputs)
    out = run(x, matrix, threads=threads, chunk=chunk, low=low)
    np.testing.assert_array_equal(out, product(x[:, :inputs], matrix, low=low))
