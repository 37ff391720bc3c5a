"""Qwen 3 (normalised query and key heads): R1-0528-Qwen3-8B."""

from typing import Any

from deepseek.config import ModelConfig
from deepseek.families.family import (
    Family,
    GgufSource,
    common_from_gguf,
    common_from_hf,
    common_to_gguf,
    common_to_hf,
    head_dim_from_gguf,
    head_dim_to_gguf,
    sliding_window_from_hf,
    sliding_window_to_hf,
)
from deepseek.families.reader import ConfigReader
from deepseek.families.reference_keys import DEFAULTS
from deepseek.families.rope import rope_from_gguf, rope_from_hf, rope_to_gguf


def from_hf(reader: ConfigReader) -> ModelConfig:
    bias = reader.boolean("attention_bias")
    return ModelConfig(
        family="qwen3",
        head_dim=reader.integer("head_dim"),
        rope=rope_from_hf(reader, interleaved=False),
        attention_bias=bias,
        attention_output_bias=bias,
        qk_norm=True,
        **sliding_window_from_hf(reader),
        **common_from_hf(reader),
    )


def to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        **common_to_hf(config, FAMILY),
        **sliding_window_to_hf(config),
        "head_dim": config.head_dim,
        "attention_bias": config.attention_bias,
    }


def from_gguf(source: GgufSource) -> ModelConfig:
    return ModelConfig(
        family="qwen3",
        head_dim=head_dim_from_gguf(source),
        rope=rope_from_gguf(source.reader),
        attention_bias="blk.0.attn_q.bias" in source.shapes,
        attention_output_bias="blk.0.attn_output.bias" in source.shapes,
        qk_norm=True,
        **common_from_gguf(source),
    )


def to_gguf(config: ModelConfig) -> dict[str, Any]:
    return {**common_to_gguf(config), **head_dim_to_gguf(config), **rope_to_gguf(config.rope)}


FAMILY = Family(
    name="qwen3",
    hf_class="Qwen3ForCausalLM",
    gguf_architecture="qwen3",
    rotates_pairs_in_gguf=False,
    from_hf=from_hf,
    to_hf=to_hf,
    from_gguf=from_gguf,
    to_gguf=to_gguf,
    hf_defaults=DEFAULTS["qwen3"],
)
