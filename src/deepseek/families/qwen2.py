"""Qwen 2 and 2.5 (biases on q, k and v): R1-Distill-Qwen."""

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
    head_dim_from_hf,
    head_dim_to_gguf,
    sliding_window_from_hf,
    sliding_window_to_hf,
)
from deepseek.families.reader import ConfigReader
from deepseek.families.reference_keys import DEFAULTS
from deepseek.families.rope import rope_from_gguf, rope_from_hf, rope_to_gguf


def from_hf(reader: ConfigReader) -> ModelConfig:
    return ModelConfig(
        family="qwen2",
        head_dim=head_dim_from_hf(reader),
        rope=rope_from_hf(reader, interleaved=False),
        attention_bias=True,
        **sliding_window_from_hf(reader),
        **common_from_hf(reader),
    )


def to_hf(config: ModelConfig) -> dict[str, Any]:
    return {**common_to_hf(config, FAMILY), **sliding_window_to_hf(config)}


def from_gguf(source: GgufSource) -> ModelConfig:
    return ModelConfig(
        family="qwen2",
        head_dim=head_dim_from_gguf(source),
        rope=rope_from_gguf(source.reader),
        attention_bias=True,
        **common_from_gguf(source),
    )


def to_gguf(config: ModelConfig) -> dict[str, Any]:
    return {**common_to_gguf(config), **head_dim_to_gguf(config), **rope_to_gguf(config.rope)}


FAMILY = Family(
    name="qwen2",
    hf_class="Qwen2ForCausalLM",
    gguf_architecture="qwen2",
    rotates_pairs_in_gguf=False,
    from_hf=from_hf,
    to_hf=to_hf,
    from_gguf=from_gguf,
    to_gguf=to_gguf,
    hf_defaults=DEFAULTS["qwen2"],
)
