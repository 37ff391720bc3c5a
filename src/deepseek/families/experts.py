"""The keys of mixture-of-experts layers, shared by the DeepSeek families."""

from typing import Any

from deepseek.config import ModelConfig, MoeConfig
from deepseek.errors import ConfigError
from deepseek.families.family import GgufSource, layers_from_hf
from deepseek.families.limits import MAX_EXPERTS
from deepseek.families.reader import ConfigReader

GATING_FUNCTIONS = {"softmax": 1, "sigmoid": 2}  # GGUF's expert_gating_func


def moe_from_hf(reader: ConfigReader, *, scoring_func: str, topk_methods: tuple[str, ...], **fixed: Any) -> MoeConfig:
    """Read the routed and shared experts. The first of topk_methods is the family's default; `fixed` wins over keys."""
    reader.must_be("scoring_func", scoring_func)
    reader.must_be("topk_method", *topk_methods)
    method = reader.text("topk_method", topk_methods[0])
    routed = _n_routed_experts(reader)
    n_group = reader.integer("n_group", None) or 1
    topk_group = reader.integer("topk_group", None) or n_group
    values = {
        "n_routed_experts": routed,
        "num_experts_per_tok": reader.integer("num_experts_per_tok"),
        "moe_intermediate_size": reader.integer("moe_intermediate_size"),
        "n_shared_experts": reader.nullable_integer("n_shared_experts") or 0,
        "scoring_func": scoring_func,
        "topk_method": method,
        "n_group": 1 if method == "greedy" else n_group,
        "topk_group": 1 if method == "greedy" else topk_group,
        "norm_topk_prob": reader.tested("norm_topk_prob", False),
        "routed_scaling_factor": reader.number("routed_scaling_factor", 1.0),
        "moe_layer_freq": reader.integer("moe_layer_freq", 1),
    }
    return MoeConfig(first_k_dense_replace=_leading_dense_layers(reader), **{**values, **fixed})


def _n_routed_experts(reader: ConfigReader) -> int:
    """Transformers writes the number under one of its aliases too; they must agree."""
    other = reader.integer("num_experts", reader.integer("num_local_experts", None))
    routed: int = reader.integer("n_routed_experts") if other is None or "n_routed_experts" in reader else other
    if routed * layers_from_hf(reader) > MAX_EXPERTS:
        raise ConfigError(
            f"{reader.where}: n_routed_experts is {routed:,} in each layer; the limit is {MAX_EXPERTS:,} in all"
        )
    reader.must_be("num_experts", routed)
    reader.must_be("num_local_experts", routed)
    return routed


def _leading_dense_layers(reader: ConfigReader) -> int:
    """first_k_dense_replace; where the family has `mlp_layer_types` too (V3.2), both must say the same.

    It may be above the number of layers: then the prediction layers are dense too.
    """
    layers = layers_from_hf(reader)
    kinds = reader.raw("mlp_layer_types", None) if "mlp_layer_types" in reader.defaults else None
    leading: int = reader.integer("first_k_dense_replace", 0)
    if kinds and "first_k_dense_replace" not in reader:
        leading = kinds.index("sparse") if isinstance(kinds, list) and "sparse" in kinds else layers
    dense = min(leading, layers)
    if kinds:
        reader.must_be("mlp_layer_types", ["dense"] * dense + ["sparse"] * (layers - dense))
    return leading


def moe_to_hf(moe: MoeConfig) -> dict[str, Any]:
    return {
        "n_routed_experts": moe.n_routed_experts,
        "num_experts_per_tok": moe.num_experts_per_tok,
        "moe_intermediate_size": moe.moe_intermediate_size,
        "n_shared_experts": moe.n_shared_experts,
        "scoring_func": moe.scoring_func,
        "topk_method": moe.topk_method,
        "n_group": moe.n_group,
        "topk_group": moe.topk_group,
        "norm_topk_prob": moe.norm_topk_prob,
        "routed_scaling_factor": moe.routed_scaling_factor,
        "first_k_dense_replace": moe.first_k_dense_replace,
        "moe_layer_freq": moe.moe_layer_freq,
    }


def moe_from_gguf(source: GgufSource, **fixed: Any) -> MoeConfig:
    """`fixed` gives what GGUF does not say: scoring_func and topk_method."""
    reader = source.reader
    n_group = reader.integer("expert_group_count", 1) or 1
    scale = reader.number("expert_weights_scale", 1.0)
    values = {
        "n_routed_experts": reader.integer("expert_count"),
        "num_experts_per_tok": reader.integer("expert_used_count"),
        "moe_intermediate_size": reader.integer("expert_feed_forward_length"),
        "n_shared_experts": reader.integer("expert_shared_count", 0),
        "n_group": n_group,
        "topk_group": reader.integer("expert_group_used_count", n_group) or n_group,
        "norm_topk_prob": reader.boolean("expert_weights_norm", False),
        "routed_scaling_factor": float(f"{scale:.6g}") if scale else 1.0,
        "first_k_dense_replace": reader.integer("leading_dense_block_count", 0),
    }
    return MoeConfig(**{**values, **fixed})


def moe_to_gguf(config: ModelConfig) -> dict[str, Any]:
    moe = config.moe
    assert moe is not None
    if moe.moe_layer_freq != 1:
        raise ConfigError(f"moe_layer_freq is {moe.moe_layer_freq}, for which GGUF has no key; keep safetensors")
    if moe.scoring_func not in GATING_FUNCTIONS:
        raise ConfigError(f"scoring_func {moe.scoring_func!r} has no GGUF value here; keep this model in safetensors")
    keys: dict[str, Any] = {
        "expert_count": moe.n_routed_experts,
        "expert_used_count": moe.num_experts_per_tok,
        "expert_feed_forward_length": moe.moe_intermediate_size,
        "expert_shared_count": moe.n_shared_experts,
        "expert_weights_scale": float(moe.routed_scaling_factor),
        "expert_weights_norm": moe.norm_topk_prob,
        "expert_gating_func": GATING_FUNCTIONS[moe.scoring_func],
        "leading_dense_block_count": moe.first_k_dense_replace,
    }
    if moe.n_group > 1:
        keys |= {"expert_group_count": moe.n_group, "expert_group_used_count": moe.topk_group}
    return keys
