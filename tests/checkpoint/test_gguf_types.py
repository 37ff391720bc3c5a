"""Every block type against the `gguf` package, which follows llama.cpp's reference code: equal bits, nothing less."""

import gguf
import numpy as np
import pytest

from deepseek.checkpoint.decode import to_float32
from deepseek.checkpoint.dtypes import GGUF_BLOCKS, dtype_of
from deepseek.checkpoint.gguf.dequantize import check_scales, dequantize
from deepseek.checkpoint.gguf.format import FILE_TYPES, TENSOR_TYPE_NUMBERS, UNSUPPORTED_TENSOR_TYPES
from deepseek.checkpoint.gguf.quantize import quantize
from deepseek.checkpoint.tensor import Bytes, RawTensor
from deepseek.errors import CheckpointError

WRITTEN_BLOCKS = ["Q8_0", "Q4_0", "Q4_1"]


def reference(dtype: str, blocks: Bytes) -> np.ndarray:
    with np.errstate(all="ignore"):
        return gguf.dequantize(blocks, gguf.GGMLQuantizationType[dtype])


def same_bits(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return bool(np.array_equal(ours.view(np.uint32).ravel(), theirs.view(np.uint32).ravel()))


@pytest.mark.parametrize("dtype", GGUF_BLOCKS)
def test_random_blocks(dtype: str) -> None:
    kind = dtype_of(dtype)
    count = 5 * (1 << 18) // kind.block_elements // 2 + 3  # several chunks and a partial one
    blocks = np.random.default_rng(1).integers(0, 256, (count, kind.block_bytes), dtype=np.uint8)
    ours = dequantize(dtype, blocks.reshape(-1), (count, kind.block_elements))
    assert same_bits(ours, reference(dtype, blocks))


@pytest.mark.parametrize("dtype", GGUF_BLOCKS)
def test_every_byte_value_in_every_place(dtype: str) -> None:
    """Among them scales that are NaN, infinite, subnormal and negative zero."""
    kind = dtype_of(dtype)
    blocks = np.repeat(np.arange(256, dtype=np.uint8)[:, None], kind.block_bytes, axis=1)
    at_one_place = np.full((kind.block_bytes * 256, kind.block_bytes), 0x3C, np.uint8)
    index = np.arange(len(at_one_place))
    at_one_place[index, index // 256] = index % 256
    for case in (blocks, at_one_place):
        ours = dequantize(dtype, case.reshape(-1), (len(case), kind.block_elements))
        assert same_bits(ours, reference(dtype, case))


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_plain_types(dtype: str) -> None:
    width = dtype_of(dtype).block_bytes
    words = np.arange(65536, dtype=np.uint16) if width == 2 else np.random.default_rng(2).integers(0, 2**32, 65536)
    data = words.astype(f"<u{width}").view(np.uint8)
    ours = to_float32(RawTensor(dtype, (256, 256), data))
    assert same_bits(ours, reference(dtype, data.reshape(256, -1)).reshape(256, 256))


def hard_values() -> np.ndarray:
    """Zeros, equal magnitudes of both signs, values at rounding ties, tiny and large scales."""
    generator = np.random.default_rng(3)
    rows = [np.zeros(256), np.tile([1.0, -1.0], 128), np.tile([-1.0, 1.0], 128), np.full(256, 7.0), np.arange(256) / 2]
    rows += [np.where(np.arange(256) % 32 == 0, 127, np.arange(256) % 120 - 59.5)]  # Q8_0 with a scale of 1: halves
    rows += [np.round(generator.standard_normal(256) * 4) / 4 for _ in range(20)]
    rows += [generator.standard_normal(256) * scale for scale in (1e-30, 1e-7, 1e-5, 1e-3, 1, 50, 1e4)]
    rows += list(generator.standard_normal((300, 256)))
    return np.array(rows, np.float32)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", *WRITTEN_BLOCKS])
def test_writing_equals_the_reference(dtype: str) -> None:
    values = hard_values()
    with np.errstate(all="ignore"):
        theirs = gguf.quantize(values, gguf.GGMLQuantizationType[dtype])
    assert quantize(dtype, values).tobytes() == theirs.tobytes()


@pytest.mark.parametrize("dtype", WRITTEN_BLOCKS)
def test_chunks_do_not_show(dtype: str) -> None:
    values = np.random.default_rng(4).standard_normal((2049, 256)).astype("f4")
    assert quantize(dtype, values).tobytes() == b"".join(quantize(dtype, row[None]).tobytes() for row in values)


@pytest.mark.parametrize("dtype", WRITTEN_BLOCKS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_blocks_refuse_what_they_cannot_hold(dtype: str, value: float) -> None:
    values = np.ones((2, 64), np.float32)
    values[1, 40] = value
    with pytest.raises(CheckpointError, match=r"blk\.0\.x holds NaN or infinite values"):
        quantize(dtype, values, "blk.0.x")


def test_overflow_is_refused() -> None:
    values = np.full((1, 32), 1e8, np.float32)
    for dtype in ("F16", "Q8_0", "Q4_0"):
        with pytest.raises(CheckpointError, match=r"(too large for F16|scale that is NaN or infinite)"):
            quantize(dtype, values)
    assert quantize("BF16", values).size == 64


def test_rows_must_be_whole_blocks() -> None:
    with pytest.raises(CheckpointError, match="rows of 48 elements are not made of whole Q8_0 blocks of 32; write F16"):
        quantize("Q8_0", np.ones((2, 48), np.float32))
    with pytest.raises(CheckpointError, match="Q6_K cannot be written; choose one of F32"):
        quantize("Q6_K", np.ones((1, 256), np.float32))


def test_wrong_size_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"17 bytes are not a Q4_0 tensor of shape \[32\], which has 18"):
        dequantize("Q4_0", np.zeros(17, np.uint8), (32,))
    with pytest.raises(CheckpointError, match="IQ2_XS is not a block type"):
        dequantize("IQ2_XS", np.zeros(18, np.uint8), (32,))


@pytest.mark.parametrize("dtype", GGUF_BLOCKS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_scale_that_is_no_number_is_found(dtype: str, bad: float) -> None:
    """Wherever decoding all-zero quants gives NaN, the check must find it, and in no other block."""
    kind = dtype_of(dtype)
    blocks = np.zeros((9, kind.block_bytes), np.uint8)
    check_scales(dtype, blocks.reshape(-1), "x")
    found = 0
    for place in range(0, kind.block_bytes - 1, 2):
        blocks[:] = 0
        blocks[5, place : place + 2] = np.array([bad], np.float16).view(np.uint8)
        if np.isfinite(reference(dtype, blocks)).all():
            check_scales(dtype, blocks.reshape(-1), "x")
        else:
            found += 1
            with pytest.raises(CheckpointError, match="x: block 5 of 9 has a scale that is NaN or infinite"):
                check_scales(dtype, blocks.reshape(-1), "x")
    with_minimum = ("Q4_1", "Q5_1", "Q4_K", "Q5_K", "Q2_K")
    assert found == (0 if dtype == "MXFP4" else 2 if dtype in with_minimum else 1)  # MXFP4's scale is an exponent


def test_type_numbers_are_those_of_the_format() -> None:
    theirs = {member.value: member.name for member in gguf.GGMLQuantizationType}
    ours = {**{number: tag for tag, number in TENSOR_TYPE_NUMBERS.items()}, **UNSUPPORTED_TENSOR_TYPES}
    assert theirs.items() <= ours.items()
    for tag in GGUF_BLOCKS:
        sizes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[tag]]
        assert sizes == (dtype_of(tag).block_elements, dtype_of(tag).block_bytes)


def test_every_type_has_a_label_for_a_file_of_it() -> None:
    """A file that is converted keeps its blocks; writing it needs the label."""
    assert FILE_TYPES.keys() == TENSOR_TYPE_NUMBERS.keys()
    names = {str(member.name): member.value for member in gguf.LlamaFileType}
    for tag, number in FILE_TYPES.items():
        label = {"F32": "ALL_F32", "MXFP4": "MOSTLY_MXFP4_MOE"}.get(tag, f"MOSTLY_{tag}")
        assert number in (names.get(label), names.get(f"{label}_M")), tag
