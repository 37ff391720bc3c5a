"""The packed layout, read byte by byte as its module describes it."""

import numpy as np
import pytest

from deepseek.packing import GROUPS, ROWS, Packing, blocks, pack_codes, pack_floats, unpack

INTEGER = [Packing(kind, group, affine) for kind in ("int4", "int8") for group in GROUPS for affine in (False, True)]
SHAPES = [(1, 1), (16, 128), (17, 33), (50, 300), (48, 64)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def code_at(block: np.ndarray, packing: Packing, inputs: int, row: int, place: int) -> int:
    """By the table in the module's docstring, one code."""
    step, within = divmod(place, packing.inputs_a_step)
    byte = int(block[packing.scale_bytes(inputs) + 64 * step + 4 * row + within % 4])
    if packing.kind == "int8":
        return byte
    return byte >> 4 if within >= 4 else byte & 15


@pytest.mark.parametrize("packing", INTEGER, ids=lambda packing: packing.name)
@shapes
def test_integers_lie_where_the_layout_says(packing: Packing, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(list(shape))
    rows, inputs = shape
    groups = packing.groups(inputs)
    codes = rng.integers(0, 16 if packing.kind == "int4" else 256, shape, dtype=np.uint8)
    scales, minimums = (rng.standard_normal((rows, groups)).astype(np.float16) for _ in range(2))
    data = pack_codes(packing, codes, scales, minimums if packing.affine else None)

    assert len(data) == packing.matrix_bytes(rows, inputs)
    assert packing.block_bytes(inputs) % 64 == 0
    stored = data.reshape(blocks(rows), -1)
    for row in range(blocks(rows) * ROWS):
        block, lane = stored[row // ROWS], row % ROWS
        heads = block[: packing.scale_bytes(inputs)].view("<f2")
        for place in range(packing.padded_inputs(inputs)):
            group, real = place // packing.group, row < rows
            code = codes[row, place] if real and place < inputs else packing.zero_point
            assert code_at(block, packing, inputs, lane, place) == code
            assert heads[group * ROWS + lane] == (scales[row, group] if real else 0)
            if packing.affine:
                assert heads[(groups + group) * ROWS + lane] == (minimums[row, group] if real else 0)
        assert not heads[groups * ROWS * (1 + packing.affine) :].any()

    wide, low = (np.repeat(part.astype(np.float32), packing.group, axis=1)[:, :inputs] for part in (scales, minimums))
    values = codes * wide + low if packing.affine else (codes.astype(np.float32) - packing.zero_point) * wide
    np.testing.assert_array_equal(unpack(packing, data, rows, inputs), values)


@shapes
def test_floats_lie_where_the_layout_says(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(list(shape))
    rows, inputs = shape
    values = rng.standard_normal(shape).astype(np.float32)
    data = pack_floats(Packing("f32"), values)
    np.testing.assert_array_equal(unpack(Packing("f32"), data, rows, inputs), values)
    steps = data.view("<f4").reshape(blocks(rows), inputs, ROWS)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    packed = pack_floats(Packing("bf16"), halves)
    np.testing.assert_array_equal(
        unpack(Packing("bf16"), packed, rows, inputs), (halves.astype(np.uint32) << 16).view(np.float32)
    )
    pairs = packed.view("<u2").reshape(blocks(rows), -1, ROWS, 2)
    for row in range(blocks(rows) * ROWS):
        for place in range(inputs):
            real = row < rows
            assert steps[row // ROWS, place, row % ROWS] == (values[row, place] if real else 0)
            assert pairs[row // ROWS, place // 2, row % ROWS, place % 2] == (halves[row, place] if real else 0)
    if inputs % 2:
        assert not pairs[:, -1, :, 1].any()


def test_names_go_both_ways() -> None:
    for packing in (*INTEGER, Packing("bf16"), Packing("f32")):
        assert Packing.named(packing.name) == packing
    with pytest.raises(ValueError, match=r"int3-g32.*int4-g32-affine"):
        Packing.named("int3-g32")


@pytest.mark.parametrize("wrong", [("int4", 16), ("int4", 0), ("bf16", 32), ("f32", 0, True), ("int2", 32)], ids=str)
def test_no_packing_that_kernels_do_not_know(wrong: tuple) -> None:
    with pytest.raises(AssertionError):
        Packing(*wrong)
