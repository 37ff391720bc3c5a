"""The fast way into the layout against its slow twin, and GGUF's blocks without a change of value."""

import numpy as np
import pytest

from deepseek import packing
from deepseek.checkpoint.decode import to_float32
from deepseek.checkpoint.dtypes import GGUF_BLOCKS, byte_size
from deepseek.checkpoint.packed.convert import matrix_pieces, rows_pieces
from deepseek.checkpoint.packed.layout import assemble, words_of_bf16, words_of_codes, words_of_floats
from deepseek.checkpoint.packed.repack import can_repack, repack
from deepseek.checkpoint.tensor import RawTensor
from deepseek.packing import Packing, pack_codes, pack_floats

SIZES = [(1, 1), (16, 32), (17, 33), (31, 64), (48, 128), (5, 200), (64, 96)]
INTEGER = [Packing(kind, group, affine) for kind in ("int4", "int8") for group in (32, 64, 128) for affine in (0, 1)]
EXACT = {
    "Q4_0": ("int4-g32", "int8-g32"),
    "Q4_1": ("int4-g32-affine", "int8-g32-affine"),
    "Q5_0": ("int8-g32",),
    "Q5_1": ("int8-g32-affine",),
    "Q8_0": ("int8-g32",),
}


def random_blocks(dtype: str, rows: int, inputs: int, seed: int = 0) -> RawTensor:
    """Every code, and scales of both signs, zero and subnormal ones among them; no NaN."""
    generator = np.random.default_rng(seed)
    data = generator.integers(0, 256, byte_size(dtype, (rows, inputs)), dtype=np.uint8)
    blocks = data.reshape(-1, GGUF_BLOCKS[dtype].block_bytes)
    for at in {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}.get(dtype, (0,)):
        scales = (generator.standard_normal(len(blocks)) * 10.0 ** generator.uniform(-7, 1, len(blocks))).astype("<f2")
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    return RawTensor(dtype, (rows, inputs), data)


@pytest.mark.parametrize(("rows", "inputs"), SIZES)
@pytest.mark.parametrize("way", INTEGER, ids=lambda way: way.name)
def test_codes_lie_as_the_slow_twin_lays_them(way: Packing, rows: int, inputs: int) -> None:
    generator = np.random.default_rng(rows * inputs)
    codes = generator.integers(0, 16 if way.kind == "int4" else 256, (rows, inputs), dtype=np.uint8)
    scales, minimums = generator.standard_normal((2, rows, way.groups(inputs))).astype("<f2")
    fast = assemble(way, words_of_codes(way, codes), scales, minimums if way.affine else None)
    assert np.array_equal(fast, pack_codes(way, codes, scales, minimums if way.affine else None))


@pytest.mark.parametrize(("rows", "inputs"), SIZES)
def test_floats_lie_as_the_slow_twin_lays_them(rows: int, inputs: int) -> None:
    values = np.random.default_rng(1).standard_normal((rows, inputs)).astype("f4")
    patterns = (values.view("u4") >> 16).astype("<u2")
    assert np.array_equal(assemble(Packing("f32"), words_of_floats(values)), pack_floats(Packing("f32"), values))
    assert np.array_equal(assemble(Packing("bf16"), words_of_bf16(patterns)), pack_floats(Packing("bf16"), patterns))


@pytest.mark.parametrize(("dtype", "name"), [(dtype, name) for dtype, names in EXACT.items() for name in names])
@pytest.mark.parametrize(("rows", "inputs"), [(16, 32), (37, 96), (1, 64), (2100, 288)])
def test_blocks_keep_their_values_bit_for_bit(dtype: str, name: str, rows: int, inputs: int) -> None:
    way, tensor = Packing.named(name), random_blocks(dtype, rows, inputs)
    assert can_repack(dtype, way)
    data = np.concatenate([piece() for piece in matrix_pieces(tensor, way)])
    found, wanted = packing.unpack(way, data, rows, inputs), to_float32(tensor)
    assert np.array_equal(found.view("u4"), wanted.view("u4"))
    assert np.array_equal(data, repack(tensor, way))


@pytest.mark.parametrize(("dtype", "name"), [("Q4_K", "int4-g32-affine"), ("Q5_K", "int8-g32-affine")])
def test_k_blocks_lose_only_the_last_bits_of_their_scales(dtype: str, name: str) -> None:
    tensor = random_blocks(dtype, 40, 512)
    blocks = tensor.data.reshape(-1, GGUF_BLOCKS[dtype].block_bytes)
    blocks[:, :4] = np.random.default_rng(3).uniform(0.01, 2, (len(blocks), 2)).astype("<f2").view(np.uint8)
    way, wanted = Packing.named(name), to_float32(tensor)
    found = packing.unpack(way, np.concatenate([piece() for piece in matrix_pieces(tensor, way)]), 40, 512)
    code, least = 31 if dtype == "Q5_K" else 15, 63 * 2.0  # the largest code; the largest scale or minimum
    assert np.abs(found - wanted).max() <= (code + 1) * least * 2.0**-11
    assert np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean()) < 3e-4


def test_no_other_type_passes_for_exact() -> None:
    assert {(dtype, way.name) for dtype in GGUF_BLOCKS for way in INTEGER if can_repack(dtype, way)} == {
        *((dtype, name) for dtype, names in EXACT.items() for name in names),
        *(("Q4_K", name) for name in ("int4-g32-affine", "int8-g32-affine")),
        ("Q5_K", "int8-g32-affine"),
    }


@pytest.mark.parametrize(
    ("dtype", "rows_dtype"), [("Q4_0", "q4_0"), ("Q4_1", "q4_1"), ("Q8_0", "q8_0"), ("Q5_0", "q8_0")]
)
def test_rows_of_an_embedding_keep_their_values(dtype: str, rows_dtype: str) -> None:
    tensor = random_blocks(dtype, 2000, 320)
    data = np.concatenate([piece() for piece in rows_pieces(tensor, rows_dtype)])
    found = to_float32(RawTensor(rows_dtype.upper(), tensor.shape, data))
    assert np.array_equal(found.view("u4"), to_float32(tensor).view("u4"))
