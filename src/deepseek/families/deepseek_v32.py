"""DeepSeek V3.2 (arXiv 2512.02556): V3 with sparse attention, whose indexer picks the keys of each query."""

from typing import Any

from deepseek.config import IndexerConfig, ModelConfig
from deepseek.families.deepseek_v3 import v3_fields_from_gguf, v3_fields_from_hf, v3_fields_to_hf
from deepseek.families.experts import moe_to_gguf
from deepseek.families.family import Family, GgufSource, layer_types_from_hf, layers_from_hf
from deepseek.families.latent import latent_to_gguf
from deepseek.families.reader import ConfigReader
from deepseek.families.reference_keys import DEFAULTS


def from_hf(reader: ConfigReader) -> ModelConfig:
    indexer = IndexerConfig(
        index_n_heads=reader.integer("index_n_heads"),
        index_head_dim=reader.integer("index_head_dim"),
        index_topk=reader.integer("index_topk"),
    )
    if any(kind != "indexed_attention" for kind in layer_types_from_hf(reader)):
        reader.must_be("layer_types", ["indexed_attention"] * layers_from_hf(reader))
    return ModelConfig(family="deepseek_v32", indexer=indexer, **v3_fields_from_hf(reader))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    indexer = config.indexer
    assert indexer is not None
    return {
        **v3_fields_to_hf(config, FAMILY),
        "index_n_heads": indexer.index_n_heads,
        "index_head_dim": indexer.index_head_dim,
        "index_topk": indexer.index_topk,
    }


def from_gguf(source: GgufSource) -> ModelConfig:
    reader = source.reader
    indexer = IndexerConfig(
        index_n_heads=reader.integer("attention.indexer.head_count"),
        index_head_dim=reader.integer("attention.indexer.key_length"),
        index_topk=reader.integer("attention.indexer.top_k"),
    )
    return ModelConfig(family="deepseek_v32", indexer=indexer, **v3_fields_from_gguf(source))


def to_gguf(config: ModelConfig) -> dict[str, Any]:
    indexer = config.indexer
    assert indexer is not None
    return {
        **latent_to_gguf(config),
        **moe_to_gguf(config),
        "attention.indexer.head_count": indexer.index_n_heads,
        "attention.indexer.key_length": indexer.index_head_dim,
        "attention.indexer.top_k": indexer.index_topk,
    }


FAMILY = Family(
    name="deepseek_v32",
    hf_class="DeepseekV32ForCausalLM",
    gguf_architecture="deepseek32",
    rotates_pairs_in_gguf=False,
    from_hf=from_hf,
    to_hf=to_hf,
    from_gguf=from_gguf,
    to_gguf=to_gguf,
    hf_defaults=DEFAULTS["deepseek_v32"],
)
