"""The quantiser against llama.cpp's Q4_0 and Q8_0, and at the ends of its range."""

import numpy as np
import pytest

from deepseek import packing
from deepseek.checkpoint.gguf.dequantize import dequantize
from deepseek.checkpoint.gguf.quantize import quantize as quantize_gguf
from deepseek.checkpoint.packed.quantize import quantize
from deepseek.errors import CheckpointError
from deepseek.packing import Floats, Packing, pack_codes

INT4, INT8 = Packing("int4", 32), Packing("int8", 32)
WAYS = [Packing(kind, group) for kind in ("int4", "int8") for group in (32, 64, 128)]


def values_of(way: Packing, values: Floats) -> Floats:
    """Quantised and back, through the slow twin."""
    rows, inputs = values.shape
    codes, scales = quantize(values, way)
    return packing.unpack(way, pack_codes(way, codes[:, :inputs], scales, None), rows, inputs)


def error(found: Floats, wanted: Floats) -> float:
    return float(np.square(found - wanted).sum() / np.square(wanted).sum())


def like_weights(rows: int = 256, inputs: int = 576) -> Floats:
    """Heavier tails than a normal distribution, as trained weights have."""
    generator = np.random.default_rng(7)
    return (generator.standard_t(8, (rows, inputs)) * 0.03).astype("f4")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize(("rows", "inputs"), [(1, 1), (3, 31), (17, 128), (40, 200)])
def test_errors_are_within_a_step(way: Packing, rows: int, inputs: int) -> None:
    values = like_weights(rows, inputs)
    codes, scales = quantize(values, way)
    assert codes.shape == (rows, way.padded_inputs(inputs))
    assert scales.shape == (rows, way.groups(inputs))
    step = np.abs(np.repeat(scales.astype("f4"), way.group, axis=1)[:, :inputs])
    inside = (codes[:, :inputs] > 0) & (codes[:, :inputs] < (15 if way.kind == "int4" else 255))
    off = np.abs(values_of(way, values) - values)
    allowed = 0.5001 if way.kind == "int8" else 1.0  # the scale of int4 moves after rounding
    assert (off <= step * allowed + 1e-9)[inside].all()


def test_int4_loses_less_than_llama_cpp() -> None:
    values = like_weights()
    theirs = error(dequantize("Q4_0", quantize_gguf("Q4_0", values), values.shape), values)
    assert error(values_of(INT4, values), values) < 0.985 * theirs


def test_int4_shrinks_no_group_and_keeps_its_largest_value() -> None:
    """What perplexity asks for, more than the least squared error."""
    values = like_weights().reshape(-1, 32)
    found = values_of(INT4, values)
    assert np.allclose((found * values).sum(axis=1), np.square(values).sum(axis=1), rtol=2.0**-10)
    largest = np.abs(values).argmax(axis=1)[:, None]
    codes, _ = quantize(values, INT4)
    assert (np.take_along_axis(codes, largest, axis=1) == 0).all()


def test_int8_is_as_near_as_q8_0() -> None:
    values = like_weights()
    theirs = error(dequantize("Q8_0", quantize_gguf("Q8_0", values), values.shape), values)
    assert error(values_of(INT8, values), values) < 1.001 * theirs


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-30, 1e-9, 1e-6, 1e-4, 1.0, 1e4])
def test_no_size_of_values_goes_wrong(way: Packing, size: float) -> None:
    values = (like_weights(5, 160) * size).astype("f4")
    found = values_of(way, values)
    assert np.isfinite(found).all()
    allowed = 0.02 if way.kind == "int8" else 0.2
    assert np.abs(found - values).max() <= allowed * np.abs(values).max() + 2.0**-24


@pytest.mark.parametrize("way", [INT4, INT8], ids=lambda way: way.name)
def test_beyond_the_reach_of_fp16(way: Packing) -> None:
    values = np.full((2, 32), 3e38, np.float32)
    with pytest.raises(CheckpointError, match="more than fp16 holds; keep the weights in bf16"):
        quantize(values, way)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_matrix_in_pieces_is_the_whole_matrix(way: Packing) -> None:
    values = like_weights(600, 200)
    whole, scales = quantize(values, way)
    for start in (0, 16, 320):
        part, part_scales = quantize(values[start : start + 16], way)
        assert np.array_equal(part, whole[start : start + 16])
        assert np.array_equal(part_scales, scales[start : start + 16])
