"""What an architecture costs, counted from its configuration alone: parameters, active parameters, memory, cache."""

from collections import Counter
from dataclasses import dataclass
from math import prod

from deepseek.config import ModelConfig
from deepseek.families.weights import weight_shapes

# Bits a weight, scales included: int8 and int4 in groups of 32 with a 16-bit scale (GGUF's Q8_0 and Q4_0).
BITS_PER_WEIGHT = {"bf16": 16.0, "int8": 8.5, "int4": 4.5}
CACHE_BYTES = {"bf16": 2, "int8": 1}


@dataclass(frozen=True, kw_only=True)
class LayerSize:
    """One row of the table: a layer, or what lies outside the layers. Counts are parameters."""

    name: str
    attention: int
    dense_mlp: int
    router: int
    shared_experts: int
    routed_experts: int
    other: int
    active: int

    @property
    def total(self) -> int:
        return self.attention + self.dense_mlp + self.router + self.shared_experts + self.routed_experts + self.other


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """layers: embedding, every layer, final norm and head, in order. mtp: the prediction layers, not in `total`."""

    layers: tuple[LayerSize, ...]
    mtp: int

    @property
    def total(self) -> int:
        return sum(layer.total for layer in self.layers)

    @property
    def active(self) -> int:
        """Parameters that one token is multiplied with. An input embedding is looked up, so it counts only if tied."""
        return sum(layer.active for layer in self.layers)


def model_size(config: ModelConfig) -> ModelSize:
    rows: dict[str, Counter[str]] = {}
    for name, shape in weight_shapes(config).items():
        rows.setdefault(_row_of(name), Counter())[_part_of(name)] += prod(shape)
    main = [
        _layer_size(row, parts, config)
        for row, parts in rows.items()
        if not row.isdigit() or int(row) < config.num_hidden_layers
    ]
    mtp = sum(sum(rows[str(config.num_hidden_layers + depth)].values()) for depth in range(_mtp(config)))
    return ModelSize(layers=tuple(main), mtp=mtp)


def weight_bytes(parameters: int, precision: str) -> int:
    """Memory of that many weights in one of BITS_PER_WEIGHT."""
    return int(parameters * BITS_PER_WEIGHT[precision] / 8)


def cache_elements_per_token(config: ModelConfig) -> int:
    """Numbers kept for each token of context: keys and values, or latents with latent attention, and indexer keys."""
    if config.mla is not None:
        layer = config.mla.kv_lora_rank + config.mla.qk_rope_head_dim
    else:
        layer = 2 * config.num_key_value_heads * config.head_dim
    if config.indexer is not None:
        layer += config.indexer.index_head_dim
    return layer * config.num_hidden_layers


def _mtp(config: ModelConfig) -> int:
    return config.num_nextn_predict_layers


def _row_of(name: str) -> str:
    parts = name.split(".")
    if parts[1] == "layers":
        return parts[2]
    return {"embed_tokens": "embedding", "norm": "norm", "weight": "head"}[parts[1]]


def _part_of(name: str) -> str:
    if ".self_attn." in name:
        return "attention"
    if ".mlp.experts." in name:
        return "routed_experts"
    if ".mlp.shared_experts." in name:
        return "shared_experts"
    if ".mlp.gate." in name:
        return "router"
    return "dense_mlp" if ".mlp." in name else "other"


def _layer_size(row: str, parts: Counter[str], config: ModelConfig) -> LayerSize:
    total, routed = sum(parts.values()), parts["routed_experts"]
    active = total - routed
    if config.moe is not None:
        active += routed * config.moe.num_experts_per_tok // config.moe.n_routed_experts
    if row == "embedding" and not config.tie_word_embeddings:
        active = 0
    label = f"layer {row}" if row.isdigit() else row
    names = ("attention", "dense_mlp", "router", "shared_experts", "routed_experts", "other")
    return LayerSize(name=label, active=active, **{name: parts[name] for name in names})
