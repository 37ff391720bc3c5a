"""Rotary frequencies and factors equal Transformers' at the sizes of published models."""

import pytest
import torch
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from deepseek.config import RopeConfig
from deepseek.families.rope import rope_to_hf
from deepseek.models.rope import attention_factor, inverse_frequencies, rotate, rotation, softmax_mscale

V2_LITE = RopeConfig(
    theta=10000.0,
    scaling="yarn",
    interleaved=True,
    factor=40.0,
    original_max_position_embeddings=4096,
    mscale=0.707,
    mscale_all_dim=0.707,
)
V3 = RopeConfig(
    theta=10000.0,
    scaling="yarn",
    interleaved=True,
    factor=40.0,
    original_max_position_embeddings=4096,
    mscale=1.0,
    mscale_all_dim=1.0,
)
R1_QWEN3 = RopeConfig(theta=1e6, scaling="yarn", factor=4.0, original_max_position_embeddings=32768)
FRACTIONAL = RopeConfig(
    theta=5000.0,
    scaling="yarn",
    factor=3.5,
    original_max_position_embeddings=1000,
    truncate=False,
    beta_fast=20.0,
    beta_slow=2.0,
    mscale=0.8,
    mscale_all_dim=0.4,
)
SHORT = RopeConfig(theta=10000.0, scaling="yarn", factor=0.5, original_max_position_embeddings=4)
STATED = RopeConfig(theta=9.0, scaling="yarn", factor=8.0, original_max_position_embeddings=512, attention_factor=0.7)
LLAMA31 = RopeConfig(theta=5e5, scaling="llama3", factor=8.0, original_max_position_embeddings=8192)
LINEAR = RopeConfig(theta=10000.0, scaling="linear", factor=4.0)


@pytest.mark.parametrize("rope", [V2_LITE, V3, R1_QWEN3, FRACTIONAL, SHORT, STATED, LLAMA31, LINEAR])
@pytest.mark.parametrize("dim", [64, 128])
def test_frequencies_and_factor(rope: RopeConfig, dim: int) -> None:
    config = AutoConfig.for_model("llama", head_dim=dim, max_position_embeddings=163840, **rope_to_hf(rope))
    expected, factor = ROPE_INIT_FUNCTIONS[rope.scaling](config)
    torch.testing.assert_close(inverse_frequencies(rope, dim, torch.device("cpu")), expected, rtol=1e-6, atol=0)
    assert attention_factor(rope) == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize(("rope", "scale"), [(V2_LITE, 0.11472), (V3, 0.13523)])
def test_softmax_scale_of_published_models(rope: RopeConfig, scale: float) -> None:
    assert 192**-0.5 * softmax_mscale(rope) == pytest.approx(scale, abs=5e-6)


@pytest.mark.parametrize("interleaved", [True, False])
def test_rotation_turns_pairs_by_position(interleaved: bool) -> None:
    rope = RopeConfig(theta=100.0, interleaved=interleaved)
    positions = torch.tensor([[0, 1, 7]])
    cos, sin = rotation(rope, 4, positions)
    x = torch.randn(1, 3, 2, 4)
    turned = rotate(x, cos, sin, interleaved=interleaved)
    pairs = [(0, 1), (2, 3)] if interleaved else [(0, 2), (1, 3)]
    for place, position in enumerate([0, 1, 7]):
        for pair, (first, second) in enumerate(pairs):
            number = torch.complex(x[0, place, :, first].double(), x[0, place, :, second].double())
            angle = torch.tensor(position * 100.0 ** (-pair / 2), dtype=torch.float64)
            expected = number * torch.polar(torch.ones((), dtype=torch.float64), angle)
            torch.testing.assert_close(turned[0, place, :, first].double(), expected.real, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(turned[0, place, :, second].double(), expected.imag, rtol=1e-5, atol=1e-5)
