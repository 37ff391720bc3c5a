"""DeepSeek V3, V3.1, R1 (arXiv 2412.19437): latent attention, sigmoid router with correction bias, MTP layers."""

from typing import Any

from deepseek.config import ModelConfig
from deepseek.families.experts import moe_from_gguf, moe_from_hf, moe_to_gguf, moe_to_hf
from deepseek.families.family import Family, GgufSource, common_to_hf
from deepseek.families.latent import latent_from_gguf, latent_from_hf, latent_to_gguf, latent_to_hf
from deepseek.families.reader import ConfigReader
from deepseek.families.reference_keys import DEFAULTS


def v3_fields_from_hf(reader: ConfigReader, *, interleaved: bool = True) -> dict[str, Any]:
    """What V3 and V3.2 share. num_mtp_layers is Transformers' other name of num_nextn_predict_layers."""
    mtp = reader.integer("num_mtp_layers", None)
    return {
        "moe": moe_from_hf(reader, scoring_func="sigmoid", topk_methods=("noaux_tc",)),
        "num_nextn_predict_layers": reader.integer("num_nextn_predict_layers", 0) if mtp is None else mtp,
        **latent_from_hf(reader, interleaved=interleaved),
    }


def v3_fields_to_hf(config: ModelConfig, family: Family) -> dict[str, Any]:
    assert config.moe is not None
    return {
        **common_to_hf(config, family),
        **latent_to_hf(config),
        **moe_to_hf(config.moe),
        "num_nextn_predict_layers": config.num_nextn_predict_layers,
    }


def v3_fields_from_gguf(source: GgufSource) -> dict[str, Any]:
    source.reader.must_be("expert_gating_func", 0, 2)
    return {
        "moe": moe_from_gguf(source, scoring_func="sigmoid", topk_method="noaux_tc"),
        **latent_from_gguf(source),
    }


def from_hf(reader: ConfigReader) -> ModelConfig:
    return ModelConfig(family="deepseek_v3", **v3_fields_from_hf(reader, interleaved=reader.tested("rope_interleave")))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    return {**v3_fields_to_hf(config, FAMILY), "rope_interleave": config.rope.interleaved}


def from_gguf(source: GgufSource) -> ModelConfig:
    return ModelConfig(family="deepseek_v3", **v3_fields_from_gguf(source))


def to_gguf(config: ModelConfig) -> dict[str, Any]:
    return {**latent_to_gguf(config), **moe_to_gguf(config)}


FAMILY = Family(
    name="deepseek_v3",
    hf_class="DeepseekV3ForCausalLM",
    gguf_architecture="deepseek2",
    rotates_pairs_in_gguf=False,
    from_hf=from_hf,
    to_hf=to_hf,
    from_gguf=from_gguf,
    to_gguf=to_gguf,
    hf_defaults=DEFAULTS["deepseek_v3"],
)
