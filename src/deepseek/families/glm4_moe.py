"""GLM-4.5's layout: grouped-query attention beside experts with a sigmoid router, a correction bias and shared experts.

It is what `deepseek carve` writes: the one published family that has the attention of Llama and Qwen (with or without
their biases and query norms) and the feed-forward layers of DeepSeek V3. Heads are rotated whole here; GLM-4.5 itself
rotates half of each, which this version does not run.
"""

from typing import Any

from deepseek.config import ModelConfig
from deepseek.errors import ConfigError
from deepseek.families.experts import moe_from_hf, moe_to_hf
from deepseek.families.family import Family, GgufSource, common_from_hf, common_to_hf, head_dim_from_hf
from deepseek.families.reader import ConfigReader
from deepseek.families.reference_keys import DEFAULTS
from deepseek.families.rope import rope_from_hf

_PARTIAL = "partial_rotary_factor"
_NO_GGUF = "glm4_moe is read and written as safetensors only; keep this model in that format"


def from_hf(reader: ConfigReader) -> ModelConfig:
    given = {**reader.mapping("rope_parameters"), **reader.mapping("rope_scaling")}
    unsaid = 1.0 if reader.is_null(_PARTIAL) else 0.5  # as in Transformers
    rotated = given.get(_PARTIAL, reader.number(_PARTIAL, unsaid))
    if rotated != 1:
        raise ConfigError(f"{reader.where}: {_PARTIAL} is {rotated} (0.5 if absent); this version rotates whole heads")
    reader.must_be("num_nextn_predict_layers", 0)
    reader.must_be("num_mtp_layers", 0)
    return ModelConfig(
        family="glm4_moe",
        head_dim=head_dim_from_hf(reader),
        rope=rope_from_hf(reader, interleaved=False),
        attention_bias=reader.boolean("attention_bias"),
        qk_norm=reader.boolean("use_qk_norm"),
        moe=moe_from_hf(reader, scoring_func="sigmoid", topk_methods=("noaux_tc",), moe_layer_freq=1),
        **common_from_hf(reader),
    )


def to_hf(config: ModelConfig) -> dict[str, Any]:
    assert config.moe is not None
    return {
        **common_to_hf(config, FAMILY),
        **moe_to_hf(config.moe),
        "head_dim": config.head_dim,
        "attention_bias": config.attention_bias,
        "use_qk_norm": config.qk_norm,
        _PARTIAL: 1.0,
        "num_nextn_predict_layers": 0,
    }


def from_gguf(source: GgufSource) -> ModelConfig:
    raise ConfigError(f"{source.reader.where}: {_NO_GGUF}")


def to_gguf(config: ModelConfig) -> dict[str, Any]:
    raise ConfigError(_NO_GGUF)


FAMILY = Family(
    name="glm4_moe",
    hf_class="Glm4MoeForCausalLM",
    gguf_architecture="glm4moe",
    rotates_pairs_in_gguf=False,
    from_hf=from_hf,
    to_hf=to_hf,
    from_gguf=from_gguf,
    to_gguf=to_gguf,
    hf_defaults=DEFAULTS["glm4_moe"],
)
