"""DeepSeek V2, V2-Lite, V2.5 and Coder-V2 (arXiv 2405.04434): latent attention, softmax router, group limits."""

from typing import Any

from deepseek.config import ModelConfig
from deepseek.families.experts import moe_from_gguf, moe_from_hf, moe_to_gguf, moe_to_hf
from deepseek.families.family import Family, GgufSource, common_to_hf
from deepseek.families.latent import latent_from_gguf, latent_from_hf, latent_to_gguf, latent_to_hf
from deepseek.families.reader import ConfigReader
from deepseek.families.reference_keys import DEFAULTS


def from_hf(reader: ConfigReader) -> ModelConfig:
    # No release renormalises, and where one would, DeepSeek's code and Transformers disagree on what happens.
    reader.must_be("norm_topk_prob", False)
    moe = moe_from_hf(reader, scoring_func="softmax", topk_methods=("greedy", "group_limited_greedy"))
    return ModelConfig(family="deepseek_v2", moe=moe, **latent_from_hf(reader, mlp_bias=reader.boolean("mlp_bias")))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    assert config.moe is not None
    return {
        **common_to_hf(config, FAMILY),
        **latent_to_hf(config),
        **moe_to_hf(config.moe),
        "mlp_bias": config.mlp_bias,
    }


def from_gguf(source: GgufSource) -> ModelConfig:
    source.reader.must_be("expert_gating_func", 0, 1)
    source.reader.must_be("expert_weights_norm", False)
    limited = source.reader.integer("expert_group_count", 1) > 1
    moe = moe_from_gguf(source, scoring_func="softmax", topk_method="group_limited_greedy" if limited else "greedy")
    return ModelConfig(family="deepseek_v2", moe=moe, **latent_from_gguf(source))


def to_gguf(config: ModelConfig) -> dict[str, Any]:
    return {**latent_to_gguf(config), **moe_to_gguf(config)}


FAMILY = Family(
    name="deepseek_v2",
    hf_class="DeepseekV2ForCausalLM",
    gguf_architecture="deepseek2",
    rotates_pairs_in_gguf=False,
    from_hf=from_hf,
    to_hf=to_hf,
    from_gguf=from_gguf,
    to_gguf=to_gguf,
    hf_defaults=DEFAULTS["deepseek_v2"],
)
