"""The keys of multi-head latent attention, shared by DeepSeek V2, V3 and V3.2."""

from typing import Any

from deepseek.config import MlaConfig, ModelConfig, RopeConfig
from deepseek.errors import ConfigError
from deepseek.families.family import GgufSource, common_from_gguf, common_from_hf, common_to_gguf
from deepseek.families.reader import ConfigReader
from deepseek.families.rope import rope_from_gguf, rope_from_hf, rope_to_gguf


def latent_from_hf(reader: ConfigReader, *, interleaved: bool = True, mlp_bias: bool = False) -> dict[str, Any]:
    """All fields of ModelConfig but the experts. head_dim is the query-key size of a head, whatever its key says."""
    mla = MlaConfig(
        kv_lora_rank=reader.integer("kv_lora_rank"),
        q_lora_rank=reader.nullable_integer("q_lora_rank"),
        qk_nope_head_dim=reader.integer("qk_nope_head_dim"),
        qk_rope_head_dim=reader.integer("qk_rope_head_dim"),
        v_head_dim=reader.integer("v_head_dim"),
    )
    bias = reader.boolean("attention_bias")
    reader.derived("head_dim")
    return {
        "head_dim": mla.qk_head_dim,
        "mla": mla,
        "rope": _rope_from_hf(reader, interleaved),
        "attention_bias": bias,
        "attention_output_bias": bias,
        "mlp_bias": mlp_bias,
        **common_from_hf(reader),
    }


def _rope_from_hf(reader: ConfigReader, interleaved: bool) -> RopeConfig:
    """mscale_all_dim scales the softmax of every type but default in Transformers; here only of yarn."""
    rope = rope_from_hf(reader, interleaved=interleaved)
    scaling = {**reader.mapping("rope_parameters"), **reader.mapping("rope_scaling")}
    if rope.scaling in ("linear", "llama3") and scaling.get("mscale_all_dim"):
        raise ConfigError(
            f"{reader.where}: rope_scaling.mscale_all_dim is {scaling['mscale_all_dim']} beside the type "
            f"{rope.scaling}; this version computes it only for yarn"
        )
    return rope


def latent_to_hf(config: ModelConfig) -> dict[str, Any]:
    mla = config.mla
    assert mla is not None
    return {
        "kv_lora_rank": mla.kv_lora_rank,
        "q_lora_rank": mla.q_lora_rank,
        "qk_nope_head_dim": mla.qk_nope_head_dim,
        "qk_rope_head_dim": mla.qk_rope_head_dim,
        "v_head_dim": mla.v_head_dim,
        "attention_bias": config.attention_bias,
    }


def latent_from_gguf(source: GgufSource) -> dict[str, Any]:
    """All fields of ModelConfig but the experts. `block_count` includes the prediction layers."""
    reader = source.reader
    mla = _mla_from_gguf(reader)
    fields = common_from_gguf(source)
    mtp = reader.integer("nextn_predict_layers", 0)
    return {
        **fields,
        "num_hidden_layers": fields["num_hidden_layers"] - mtp,
        "num_nextn_predict_layers": mtp,
        "num_key_value_heads": fields["num_attention_heads"],
        "head_dim": mla.qk_head_dim,
        "mla": mla,
        "rope": rope_from_gguf(reader, interleaved=True, latent=True),
        "attention_bias": "blk.0.attn_kv_a_mqa.bias" in source.shapes,
        "attention_output_bias": "blk.0.attn_output.bias" in source.shapes,
    }


def _mla_from_gguf(reader: ConfigReader) -> MlaConfig:
    """Since April 2025 key_length is the latent's and key_length_mla the heads'; older files have only the heads'."""
    rank, rotated = reader.integer("attention.kv_lora_rank"), reader.integer("rope.dimension_count")
    key, value = reader.integer("attention.key_length"), reader.integer("attention.value_length")
    return MlaConfig(
        kv_lora_rank=rank,
        q_lora_rank=reader.integer("attention.q_lora_rank", None) or None,
        qk_nope_head_dim=reader.integer("attention.key_length_mla", key) - rotated,
        qk_rope_head_dim=rotated,
        v_head_dim=reader.integer("attention.value_length_mla", value),
    )


def latent_to_gguf(config: ModelConfig) -> dict[str, Any]:
    mla, rope = config.mla, config.rope
    assert mla is not None
    if not rope.interleaved:
        raise ConfigError("rope_interleave is false, for which GGUF has no key; keep this model in safetensors")
    if rope.scaling == "yarn" and (rope.attention_factor is not None or not rope.mscale_all_dim):
        raise ConfigError(
            "latent attention in GGUF needs YaRN with mscale_all_dim and without attention_factor; keep this model in "
            "safetensors"
        )
    keys = {
        **common_to_gguf(config),
        **rope_to_gguf(rope, latent=True),
        "block_count": config.num_hidden_layers + config.num_nextn_predict_layers,
        "attention.head_count_kv": 1,  # what is cached is one latent a token
        "attention.kv_lora_rank": mla.kv_lora_rank,
        "attention.key_length": mla.kv_lora_rank + mla.qk_rope_head_dim,
        "attention.value_length": mla.kv_lora_rank,
        "attention.key_length_mla": mla.qk_head_dim,
        "attention.value_length_mla": mla.v_head_dim,
        "rope.dimension_count": mla.qk_rope_head_dim,
    }
    if mla.q_lora_rank is not None:
        keys["attention.q_lora_rank"] = mla.q_lora_rank
    if config.num_nextn_predict_layers:
        keys["nextn_predict_layers"] = config.num_nextn_predict_layers
    return keys
