"""Raw tensors against PyTorch's conversions."""

import tracemalloc

import numpy as np
import pytest
import torch

from deepseek.checkpoint.decode import from_float32, to_float32
from deepseek.checkpoint.dtypes import DTYPES, byte_size
from deepseek.checkpoint.fp8 import scale_values
from deepseek.checkpoint.tensor import RawTensor
from deepseek.errors import CheckpointError

TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn}


def as_torch(tensor: RawTensor) -> torch.Tensor:
    return torch.from_numpy(tensor.data.copy()).view(TORCH[tensor.dtype]).reshape(tensor.shape)


def all_codes(dtype: str) -> RawTensor:
    if dtype == "F8_E4M3":
        return RawTensor(dtype, (16, 16), np.arange(256).astype(np.uint8))
    codes = np.arange(1 << 16).astype("<u2")
    return RawTensor(dtype, (256, 256), codes.view(np.uint8))


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F8_E4M3"])
def test_every_code_decodes_as_in_torch(dtype: str) -> None:
    tensor = all_codes(dtype)
    ours, theirs = to_float32(tensor), as_torch(tensor).float().numpy()
    np.testing.assert_array_equal(ours, theirs)
    finite = ~np.isnan(theirs)
    np.testing.assert_array_equal(np.signbit(ours[finite]), np.signbit(theirs[finite]))


def hard_values() -> np.ndarray:
    """Bits of every exponent and sign with random mantissas, ties included, without what only overflows."""
    bits = np.random.default_rng(0).integers(0, 1 << 32, 200_000, dtype=np.uint64).astype(np.uint32)
    bits[::3] = bits[::3] & 0xFFFF0000 | 0x8000  # ties for BF16
    bits[1::3] = bits[1::3] & 0xFFFFE000 | 0x1000  # ties for F16
    return bits.view(np.float32)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_rounding_is_that_of_torch(dtype: str) -> None:
    values = hard_values()
    theirs = torch.from_numpy(values).to(TORCH[dtype])
    fits = ~(torch.isinf(theirs).numpy() & np.isfinite(values))
    values, theirs = values[fits], theirs[torch.from_numpy(fits)]
    ours = from_float32(values, dtype)
    number = ~np.isnan(values)
    assert (~number).any()
    np.testing.assert_array_equal(ours.data.view("<u2")[number], theirs.view(torch.uint16).numpy()[number])
    assert np.isnan(to_float32(ours)[~number]).all()


def test_nan_with_a_full_payload_stays_nan() -> None:
    values = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
    for dtype in ("F16", "BF16"):
        assert np.isnan(to_float32(from_float32(values, dtype))).all()


@pytest.mark.parametrize(("dtype", "value"), [("F16", 65520.0), ("F16", -1e6), ("BF16", 3.4028e38)])
def test_what_would_become_infinite_is_refused(dtype: str, value: float) -> None:
    with pytest.raises(CheckpointError, match=f"too large for {dtype}; write F32"):
        from_float32(np.array([1.0, value], np.float32), dtype)
    assert np.isinf(to_float32(from_float32(np.array([np.inf], np.float32), dtype))).all()


def test_f32_shares_memory_both_ways() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = from_float32(values, "F32")
    assert np.shares_memory(tensor.data, values)
    assert np.shares_memory(to_float32(tensor), values)
    assert to_float32(tensor).shape == (2, 3)


@pytest.mark.parametrize(
    ("shape", "block"), [((256, 128), (128, 128)), ((129, 1), (128, 128)), ((1, 300), (128, 128)), ((37, 53), (16, 8))]
)
def test_fp8_blocks_against_torch(shape: tuple[int, int], block: tuple[int, int]) -> None:
    generator = np.random.default_rng(1)
    codes = np.resize(np.arange(256), shape).astype(np.uint8)
    codes[(codes & 0x7F) == 0x7F] = 0
    blocks = tuple(-(-size // step) for size, step in zip(shape, block, strict=True))
    factors = generator.uniform(1e-5, 3, blocks).astype(np.float32)
    tensor = RawTensor("F8_E4M3", shape, codes.reshape(-1), from_float32(factors, "F32"), block)
    wide = torch.from_numpy(factors).repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    theirs = torch.from_numpy(codes).view(torch.float8_e4m3fn).float() * wide[: shape[0], : shape[1]]
    np.testing.assert_array_equal(to_float32(tensor), theirs.numpy())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0])
def test_unusable_scales_are_refused(value: float) -> None:
    factors = np.ones((2, 3), np.float32)
    factors[1, 2] = value
    scale = from_float32(factors, "F32")
    with pytest.raises(CheckpointError, match=r"FP8 scale at \[1, 2\] is .*fetch it again"):
        scale_values(scale)
    with pytest.raises(CheckpointError, match="FP8 scale"):
        to_float32(RawTensor("F8_E4M3", (20, 40), np.zeros(800, np.uint8), scale, (16, 16)))


def test_what_holds_no_weights_is_refused() -> None:
    with pytest.raises(CheckpointError, match="I32 cannot be read as floating point"):
        to_float32(RawTensor("I32", (1,), np.zeros(4, np.uint8)))
    with pytest.raises(CheckpointError, match="cannot be written as Q4_0"):
        from_float32(np.zeros(32, np.float32), "Q4_0")


def test_conversion_needs_little_beside_its_result() -> None:
    values = np.ones((16, 1 << 20), np.float32)
    tracemalloc.start()
    tensor = from_float32(values, "BF16")
    narrow = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    to_float32(tensor)
    wide = tracemalloc.get_traced_memory()[1] - tensor.data.nbytes
    tracemalloc.stop()
    assert narrow < values.nbytes // 2 + (40 << 20)
    assert wide < values.nbytes + (1 << 20)


def test_byte_sizes() -> None:
    assert byte_size("BF16", ()) == 2
    assert byte_size("F8_E4M3", (3, 5)) == 15
    assert byte_size("Q4_K", (2, 512)) == 2 * 2 * 144
    assert byte_size("F32", (0, 7)) == 0
    assert all(dtype.tag == tag for tag, dtype in DTYPES.items())
    with pytest.raises(CheckpointError, match="blocks of 32 elements"):
        byte_size("Q8_0", (32, 33))
    with pytest.raises(CheckpointError, match="'F7' is unknown"):
        byte_size("F7", (1,))


def test_slices_share_bytes() -> None:
    codes = np.arange(2 * 40 * 16, dtype=np.int64).astype(np.uint8)
    scale = from_float32(np.arange(2 * 3, dtype=np.float32).reshape(2, 3, 1), "F32")
    fused = RawTensor("F8_E4M3", (2, 40, 16), codes, scale, (16, 16))
    second = fused.entry(1)
    assert second.shape == (40, 16)
    assert np.shares_memory(second.data, codes)
    tail = second.slice_first(32, 40)
    assert tail.scale is not None
    assert (tail.shape, tail.scale.shape) == ((8, 16), (1, 1))
    np.testing.assert_array_equal(tail.data, codes[(40 + 32) * 16 :])
    np.testing.assert_array_equal(tail.scale.data.view(np.float32), [5.0])
    with pytest.raises(AssertionError, match="within an FP8 block"):
        second.slice_first(8, 16)
