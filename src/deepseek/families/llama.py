"""Llama: DeepSeek LLM 7B and 67B, R1-Distill-Llama, SmolLM2."""

import math
from typing import Any

from deepseek.config import ModelConfig, RopeConfig
from deepseek.errors import ConfigError
from deepseek.families.family import (
    Family,
    GgufSource,
    common_from_gguf,
    common_from_hf,
    common_to_gguf,
    common_to_hf,
    head_dim_from_gguf,
    head_dim_from_hf,
    head_dim_to_gguf,
)
from deepseek.families.reader import ConfigReader
from deepseek.families.reference_keys import DEFAULTS
from deepseek.families.rope import rope_from_gguf, rope_from_hf, rope_to_gguf

# Llama 3.1 to 3.3: GGUF stores only the divisors that follow from these, so they are recognised, not read.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def from_hf(reader: ConfigReader) -> ModelConfig:
    bias = reader.boolean("attention_bias")
    return ModelConfig(
        family="llama",
        head_dim=head_dim_from_hf(reader),
        rope=rope_from_hf(reader, interleaved=False),
        attention_bias=bias,
        attention_output_bias=bias,
        mlp_bias=reader.boolean("mlp_bias"),
        **common_from_hf(reader),
    )


def to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        **common_to_hf(config, FAMILY),
        "head_dim": config.head_dim,
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
    }


def from_gguf(source: GgufSource) -> ModelConfig:
    head = head_dim_from_gguf(source)
    rope = rope_from_gguf(source.reader)
    if source.rope_divisors is not None:
        rope = _recognise_llama3(rope, source.rope_divisors, head)
    return ModelConfig(
        family="llama",
        head_dim=head,
        rope=rope,
        attention_bias="blk.0.attn_q.bias" in source.shapes,
        attention_output_bias="blk.0.attn_output.bias" in source.shapes,
        mlp_bias="blk.0.ffn_down.bias" in source.shapes,
        **common_from_gguf(source),
    )


def to_gguf(config: ModelConfig) -> dict[str, Any]:
    return {**common_to_gguf(config), **head_dim_to_gguf(config), **rope_to_gguf(config.rope)}


def llama3_divisors(rope: RopeConfig, head_dim: int) -> tuple[float, ...]:
    """By how much each frequency is divided (GGUF's rope_freqs.weight), of length head_dim / 2.

    Wavelengths above original / low_freq_factor are divided by `factor`, those below original / high_freq_factor not
    at all, the rest by a smooth mixture (Llama 3.1 reference code, `apply_scaling`).
    """
    length = rope.original_max_position_embeddings
    assert rope.scaling == "llama3"
    assert length is not None
    low, high = rope.low_freq_factor, rope.high_freq_factor

    def divisor(pair: int) -> float:
        turns = length / (2 * math.pi * math.pow(rope.theta, 2 * pair / head_dim))
        if turns < low:
            return rope.factor
        if turns > high:
            return 1.0
        smooth = (turns - low) / (high - low)
        return 1.0 / ((1 - smooth) / rope.factor + smooth)

    return tuple(divisor(pair) for pair in range(head_dim // 2))


def _recognise_llama3(rope: RopeConfig, divisors: tuple[float, ...], head_dim: int) -> RopeConfig:
    if rope.scaling == "none" and len(divisors) == head_dim // 2:
        found = RopeConfig(theta=rope.theta, scaling="llama3", factor=max(divisors), **_LLAMA3)  # type: ignore[arg-type]
        expected = llama3_divisors(found, head_dim)
        if all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(expected, divisors, strict=True)):
            return found
    raise ConfigError("rope_freqs.weight does not hold Llama 3's scaling; convert this model from its safetensors")


FAMILY = Family(
    name="llama",
    hf_class="LlamaForCausalLM",
    gguf_architecture="llama",
    rotates_pairs_in_gguf=True,
    from_hf=from_hf,
    to_hf=to_hf,
    from_gguf=from_gguf,
    to_gguf=to_gguf,
    hf_defaults=DEFAULTS["llama"],
)
