"""DeepSeekMoE 16B (V1; arXiv 2401.06066): multi-head attention, half-split RoPE, softmax router, shared experts."""

from typing import Any

from deepseek.config import ModelConfig
from deepseek.families.experts import moe_from_gguf, moe_from_hf, moe_to_gguf, moe_to_hf
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
from deepseek.families.rope import rope_from_gguf, rope_from_hf, rope_to_gguf


def from_hf(reader: ConfigReader) -> ModelConfig:
    bias = reader.boolean("attention_bias", False)
    return ModelConfig(
        family="deepseek",
        head_dim=head_dim_from_hf(reader),
        rope=rope_from_hf(reader, interleaved=False),
        attention_bias=bias,
        attention_output_bias=bias,
        moe=moe_from_hf(reader, scoring_func="softmax", topk_methods=("greedy",), routed_scaling_factor=1.0),
        **common_from_hf(reader),
    )


def to_hf(config: ModelConfig) -> dict[str, Any]:
    assert config.moe is not None
    return {
        **common_to_hf(config, FAMILY),
        **moe_to_hf(config.moe),
        "head_dim": config.head_dim,
        "attention_bias": config.attention_bias,
    }


def from_gguf(source: GgufSource) -> ModelConfig:
    source.reader.must_be("expert_gating_func", 1)
    return ModelConfig(
        family="deepseek",
        head_dim=head_dim_from_gguf(source),
        rope=rope_from_gguf(source.reader, interleaved=False),
        attention_bias="blk.0.attn_q.bias" in source.shapes,
        attention_output_bias="blk.0.attn_output.bias" in source.shapes,
        moe=moe_from_gguf(source, scoring_func="softmax", topk_method="greedy"),
        **common_from_gguf(source),
    )


def to_gguf(config: ModelConfig) -> dict[str, Any]:
    return {
        **common_to_gguf(config),
        **head_dim_to_gguf(config),
        **rope_to_gguf(config.rope),
        **moe_to_gguf(config),
    }


FAMILY = Family(
    name="deepseek",
    hf_class="DeepseekForCausalLM",
    gguf_architecture="deepseek",
    rotates_pairs_in_gguf=True,
    from_hf=from_hf,
    to_hf=to_hf,
    from_gguf=from_gguf,
    to_gguf=to_gguf,
)
