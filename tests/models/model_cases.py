"""Tiny architectures for the parity tests, one for each way in which families differ. No value is at its default."""

from dataclasses import replace
from typing import Any

from deepseek.config import IndexerConfig, MlaConfig, ModelConfig, MoeConfig, RopeConfig

SIZES: dict[str, Any] = {
    "vocab_size": 67,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "max_position_embeddings": 96,
    "rms_norm_eps": 0.02,  # large, so that a wrong epsilon shows
    "bos_token_id": 3,
    "eos_token_ids": (5,),
    "pad_token_id": 6,
}
LINEAR = RopeConfig(theta=700.0, scaling="linear", factor=3.0)
LLAMA3 = RopeConfig(
    theta=900.0,
    scaling="llama3",
    factor=6.0,
    original_max_position_embeddings=24,
    low_freq_factor=1.5,
    high_freq_factor=3.5,
)
YARN = RopeConfig(
    theta=800.0, scaling="yarn", factor=4.0, original_max_position_embeddings=24, beta_fast=6.0, beta_slow=1.5
)
YARN_MLA = replace(YARN, interleaved=True, mscale=0.9, mscale_all_dim=0.6)


def _dense(family: str, **changes: Any) -> ModelConfig:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    values = {**SIZES, **heads, "family": family, "rope": RopeConfig(theta=500.0), **changes}
    return ModelConfig(**values)


def _llama(**changes: Any) -> ModelConfig:
    biases = {"attention_bias": True, "attention_output_bias": True, "mlp_bias": True}
    return _dense("llama", **{"head_dim": 12, **biases, **changes})


def _v1(**changes: Any) -> ModelConfig:
    moe = MoeConfig(
        n_routed_experts=7,
        num_experts_per_tok=3,
        moe_intermediate_size=12,
        n_shared_experts=2,
        first_k_dense_replace=1,
        **changes,
    )
    return _dense("deepseek", num_key_value_heads=4, moe=moe)


def _latent(family: str, *, q_lora_rank: int | None, moe: MoeConfig, **changes: Any) -> ModelConfig:
    mla = MlaConfig(kv_lora_rank=16, q_lora_rank=q_lora_rank, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10)
    values = {
        **SIZES,
        "family": family,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": mla.qk_head_dim,
        "rope": RopeConfig(theta=600.0, interleaved=True),
        "attention_bias": True,
        "attention_output_bias": True,
        "mla": mla,
        "moe": moe,
        **changes,
    }
    return ModelConfig(**values)


V2_GREEDY = MoeConfig(
    n_routed_experts=7,
    num_experts_per_tok=3,
    moe_intermediate_size=12,
    n_shared_experts=2,
    routed_scaling_factor=1.7,
    first_k_dense_replace=1,
)
V2_GROUPS = replace(V2_GREEDY, n_routed_experts=12, topk_method="group_limited_greedy", n_group=4, topk_group=2)
V3_GROUPS = replace(
    V2_GROUPS,
    topk_method="noaux_tc",
    scoring_func="sigmoid",
    norm_topk_prob=True,
    routed_scaling_factor=2.3,
    n_shared_experts=1,
)
CARVED = replace(
    V3_GROUPS, n_group=1, topk_group=1, norm_topk_prob=False, routed_scaling_factor=2.0, first_k_dense_replace=0
)
INDEXER = IndexerConfig(index_n_heads=3, index_head_dim=20, index_topk=9)


def _v3(moe: MoeConfig = V3_GROUPS, q_lora_rank: int | None = 14, **changes: Any) -> ModelConfig:
    return _latent("deepseek_v3", q_lora_rank=q_lora_rank, moe=moe, **changes)


CASES: dict[str, ModelConfig] = {
    "llama": _llama(),
    "llama-tied-no-bias": _llama(
        tie_word_embeddings=True, attention_bias=False, attention_output_bias=False, mlp_bias=False
    ),
    "llama-linear": _llama(rope=LINEAR),
    "llama-llama3": _llama(rope=LLAMA3),
    "llama-yarn": _llama(rope=YARN),
    "llama-yarn-untruncated": _llama(rope=replace(YARN, truncate=False, attention_factor=1.3)),
    "qwen2": _dense("qwen2", attention_bias=True),
    "qwen2-window": _dense("qwen2", attention_bias=True, sliding_window=5, max_window_layers=1),
    "qwen2-tied-yarn": _dense("qwen2", attention_bias=True, tie_word_embeddings=True, rope=YARN),
    "qwen3": _dense("qwen3", head_dim=12, attention_bias=True, attention_output_bias=True, qk_norm=True),
    "qwen3-window": _dense("qwen3", head_dim=12, qk_norm=True, sliding_window=4, max_window_layers=2),
    "v1": _v1(),
    "v1-normed": _v1(norm_topk_prob=True),
    "v2-lite": _latent("deepseek_v2", q_lora_rank=None, moe=V2_GREEDY, rope=YARN_MLA, mlp_bias=True),
    "v2-groups": _latent("deepseek_v2", q_lora_rank=14, moe=V2_GROUPS, rope=replace(YARN_MLA, mscale=0.6)),
    "v2-plain-rope": _latent("deepseek_v2", q_lora_rank=14, moe=V2_GROUPS, tie_word_embeddings=True),
    "v3": _v3(rope=YARN_MLA),
    "v3-no-q-lora": _v3(q_lora_rank=None, attention_bias=False, attention_output_bias=False),
    "v3-half-split": _v3(rope=replace(YARN_MLA, interleaved=False)),
    "v3-unnormed": _v3(replace(V3_GROUPS, norm_topk_prob=False), tie_word_embeddings=True),
    "v3-one-group": _v3(replace(V3_GROUPS, n_group=1, topk_group=1, num_experts_per_tok=5)),
    "v3-aligned-experts": _v3(replace(V3_GROUPS, moe_intermediate_size=16, first_k_dense_replace=2)),
    "v3-yarn-factor": _v3(rope=replace(YARN_MLA, mscale=None, mscale_all_dim=None)),
    "glm4": _dense("glm4_moe", head_dim=12, attention_bias=True, qk_norm=True, moe=V3_GROUPS),
    "glm4-carved": _dense("glm4_moe", tie_word_embeddings=True, moe=CARVED),
    "v32": _latent("deepseek_v32", q_lora_rank=14, moe=V3_GROUPS, indexer=INDEXER, rope=YARN_MLA),
    "v32-plain": _latent(
        "deepseek_v32",
        q_lora_rank=14,
        moe=replace(V3_GROUPS, norm_topk_prob=False),
        indexer=INDEXER,
        attention_bias=False,
        attention_output_bias=False,
    ),
}
