"""Which keys llama.cpp reads of a GGUF header, by architecture.

Written down from llama.cpp of summer 2026: `llama_model_base::load_hparams` in src/llama-model.cpp, and
`load_arch_hparams` of src/models/{llama,qwen2,qwen3,deepseek,deepseek2,deepseek32}.cpp.
"""

# The key of a file without rope.scaling.type; a factor without a type is this one's.
DEFAULT_ROPE_SCALING = "linear"

_ALL = frozenset(
    "context_length embedding_length embedding_length_out block_count feed_forward_length pooling_type "
    "attention.causal attention.head_count attention.head_count_kv attention.key_length attention.value_length "
    "attention.key_length_swa attention.value_length_swa attention.layer_norm_rms_epsilon expert_count "
    "expert_used_count expert_group_count expert_group_used_count classifier.output_labels rope.dimension_count "
    "rope.dimension_count_swa rope.freq_base rope.scale_linear rope.scaling.type rope.scaling.factor "
    "rope.scaling.alpha rope.scaling.attn_factor rope.scaling.finetuned rope.scaling.original_context_length".split()
)
_EXPERTS = frozenset(
    "leading_dense_block_count expert_feed_forward_length expert_shared_count expert_weights_scale".split()
)
_LATENT = _EXPERTS | frozenset(
    "vocab_size attention.q_lora_rank attention.kv_lora_rank attention.key_length_mla attention.value_length_mla "
    "expert_weights_norm expert_gating_func rope.scaling.yarn_log_multiplier nextn_predict_layers".split()
)
_INDEXER = frozenset("attention.indexer.head_count attention.indexer.key_length attention.indexer.top_k".split())

READ_BY_LLAMA_CPP: dict[str, frozenset[str]] = {
    "llama": _ALL,
    "qwen2": _ALL,
    "qwen3": _ALL,
    "deepseek": _ALL | _EXPERTS,
    "deepseek2": _ALL | _LATENT | frozenset(("attention.temperature_scale", "attention.temperature_length")),
    "deepseek32": _ALL | _LATENT | _INDEXER | frozenset(("rope.dimension_sections",)),
}
