"""Embedding look-up, RMSNorm and the quantisation of activations against their twins."""

import numpy as np
import pytest

from deepseek.kernels import rows
from deepseek.packing import Floats
from kernel_plans import Activations, Matrix, Plan, floats, int32, random_matrix, room
from kernel_twins import quantise, rest_of, rms_norm

EPSILON = 1e-5


def prepared(x: Floats, matrix: Matrix, threads: int = 1, **options: object) -> Activations:
    plan = Plan(len(x))
    activations = plan.prepare(x, matrix, epsilon=EPSILON, **options)  # type: ignore[arg-type]
    plan.run(threads)
    return activations


def matrix_of(packing: str, inputs: int) -> Matrix:
    return random_matrix(np.random.default_rng(0), packing, rows=16, inputs=inputs)


@pytest.mark.parametrize("inputs", [1, 15, 64, 100, 129, 576, 2048])
def test_rms_norm(inputs: int) -> None:
    rng = np.random.default_rng(inputs)
    x, weight = floats(rng.standard_normal((3, inputs)) * 10), floats(rng.standard_normal(inputs))
    normed = prepared(x, matrix_of("f32", inputs), norm=weight).floats
    for row in range(3):
        twin = rms_norm(x[row, :inputs], weight[0, :inputs], EPSILON)
        np.testing.assert_array_equal(normed[row, :inputs], twin)
        exact = x[row, :inputs].astype(np.float64)
        exact = weight[0, :inputs] * exact / np.sqrt((exact**2).mean() + EPSILON)
        np.testing.assert_allclose(twin, exact, rtol=1e-6)
    assert not normed[:3, inputs:].any()


@pytest.mark.parametrize("packing", ["int4-g32", "int4-g128", "int8-g64-affine"])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("inputs", [1, 33, 100, 576])
def test_codes_factors_and_starts(packing: str, normed: bool, inputs: int) -> None:
    rng = np.random.default_rng(inputs)
    matrix = matrix_of(packing, inputs)
    x, weight = floats(rng.standard_normal((5, inputs)) * 3), floats(rng.standard_normal(inputs))
    x[2] = 0
    got = prepared(x, matrix, low=True, norm=weight if normed else None)
    group = min(matrix.packing.group, 64)
    values = room((5, matrix.padded_inputs))
    for row in range(5):
        line = x[row, :inputs]
        values[row, :inputs] = rms_norm(line, weight[0, :inputs], EPSILON) if normed else line
    for place in range(2):
        codes, step = quantise(values, group)
        np.testing.assert_array_equal(got.codes[place, :5], codes.reshape(5, -1))
        np.testing.assert_array_equal(got.factors[place, :5], step)
        sums = codes.sum(axis=2)
        if matrix.packing.affine:
            np.testing.assert_array_equal(got.starts[place, :5].view(np.float32), (step * sums).astype(np.float32))
        else:
            np.testing.assert_array_equal(got.starts[place, :5], -matrix.packing.zero_point * sums)
        assert np.abs(codes).max() <= 127
        values = rest_of(values, codes, step)


@pytest.mark.parametrize("largest", [1e-45, 1e-40, 1.4e-36, 1.6e-36, 1e-30, 1e30, 3.4e38])
def test_tiny_and_huge_groups(largest: float) -> None:
    """Codes stay within +-127 where their step or its inverse is no ordinary float: such a group counts as zeros."""
    matrix = matrix_of("int8-g32-affine", 32)
    x = floats(np.linspace(-largest, largest, 32))
    got = prepared(x, matrix, low=True)
    codes, step = quantise(x[:, :32], 32)
    assert np.abs(codes).max() <= 127
    np.testing.assert_array_equal(got.codes[0, 0], codes.reshape(-1))
    np.testing.assert_array_equal(got.factors[0, 0], step[0])
    rest, rest_step = quantise(rest_of(x[:, :32], codes, step), 32)
    np.testing.assert_array_equal(got.codes[1, 0], rest.reshape(-1))
    np.testing.assert_array_equal(got.factors[1, 0], rest_step[0])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_broken_activation_is_seen(wrong: float) -> None:
    """Its group's factor is no finite number, so the outputs are none either; the other groups are what they were."""
    x = floats(np.linspace(-1, 1, 96))
    x[0, 40] = wrong
    got = prepared(x, matrix_of("int8-g32", 96))
    assert list(np.isfinite(got.factors[0, 0])) == [True, False, True]


def test_rows_do_not_depend_on_how_they_are_divided() -> None:
    rng = np.random.default_rng(3)
    matrix, weight = matrix_of("int4-g64", 200), floats(rng.standard_normal(200))
    x = floats(rng.standard_normal((9, 200)))
    alone = [prepared(x[row : row + 1], matrix, norm=weight).codes[0, 0] for row in range(9)]
    for count, threads in ((2, 1), (3, 2), (9, 3)):
        got = prepared(x[:count], matrix, threads, norm=weight)
        np.testing.assert_array_equal(got.codes[0, :count], alone[:count])


def test_few_rows_are_prepared_by_every_thread_for_itself() -> None:
    """In places of their own, PRIVATE_* bytes apart, unless ALWAYS_SHARED says that they are divided."""
    x, matrix = floats(np.linspace(-1, 1, 200).reshape(2, 100)), matrix_of("int4-g32", 100)
    got = prepared(x, matrix, threads=3)
    for thread in range(3):
        np.testing.assert_array_equal(got.codes[0, 2 * thread : 2 * thread + 2], got.codes[0, :2])
    assert got.codes[0, :2].any()
    plan = Plan(2)
    divided = plan.prepare(x, matrix)
    plan.set(rows.ALWAYS_SHARED, 1)
    plan.run(3)
    np.testing.assert_array_equal(divided.codes[0, :2], got.codes[0, :2])
    assert not divided.codes[0, 2:].any()


def embedded(kind: str, table: np.ndarray, row_bytes: int, inputs: int, tokens: list[int]) -> Floats:
    out = floats(np.zeros((len(tokens), inputs)))
    plan = Plan(len(tokens))
    plan.add(rows.embed, {
        rows.EMBED_TABLE: table,
        rows.EMBED_ROW_BYTES: row_bytes,
        rows.EMBED_TYPE: rows.ROW_TYPES[kind],
        rows.EMBED_INPUTS: inputs,
        rows.EMBED_TOKENS: int32(tokens),
        rows.EMBED_OUT: out,
        rows.EMBED_OUT_STRIDE: out.strides[0],
    })  # fmt: skip
    plan.run(2)
    assert not out[:, inputs:].any()
    return out[:, :inputs]


TOKENS = [4, 0, 4, 6, 1, 2]


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("inputs", [5, 64, 100])
def test_embedding_of_floats(kind: str, inputs: int) -> None:
    values = np.random.default_rng(0).standard_normal((7, inputs)).astype(np.float32)
    table = {"f32": values, "f16": values.astype(np.float16), "bf16": (values.view(np.uint32) >> 16).astype("<u2")}[
        kind
    ]
    wide = (table.astype(np.uint32) << 16).view(np.float32) if kind == "bf16" else table.astype(np.float32)
    np.testing.assert_array_equal(embedded(kind, table, table.strides[0], inputs, TOKENS), wide[TOKENS])


@pytest.mark.parametrize("kind", ["q4_0", "q4_1", "q8_0"])
def test_embedding_of_gguf_blocks(kind: str) -> None:
    """Against the `gguf` package's own reading of the same bytes."""
    gguf = pytest.importorskip("gguf")
    form = getattr(gguf.GGMLQuantizationType, kind.upper())
    values = np.random.default_rng(0).standard_normal((7, 96)).astype(np.float32)
    table = np.ascontiguousarray(gguf.quants.quantize(values, form))
    got = embedded(kind, table, table.shape[1], 96, TOKENS)
    np.testing.assert_array_equal(got, gguf.quants.dequantize(table, form)[TOKENS])
