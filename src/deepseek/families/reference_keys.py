"""What Transformers reads of a config.json. Written by tests/families/derive_reference_keys.py."""

from typing import Any

TRANSFORMERS = "5.23.0"

# Read whatever the family.
SHARED = frozenset(
    "attention_chunk_size attn_implementation bos_token_id dtype eos_token_id experts_implementation head_dim "
    "hidden_size is_causal kv_sharing_modes layer_types max_position_embeddings name_or_path num_attention_heads "
    "num_hidden_layers num_labels number_of_conv_states original_max_position_embeddings output_attentions "
    "pad_token_id partial_rotary_factor per_layer_config quantization_config rope_parameters rope_scaling "
    "rope_theta sliding_window tie_word_embeddings torch_dtype transformers_weights ".split()
)

# Read by the code of each family besides.
READ: dict[str, frozenset[str]] = {
    "llama": frozenset(
        "attention_bias attention_dropout hidden_act intermediate_size mlp_bias num_key_value_heads rms_norm_eps "
        "vocab_size ".split()
    ),
    "qwen2": frozenset(
        "attention_dropout hidden_act intermediate_size max_window_layers num_key_value_heads rms_norm_eps "
        "use_sliding_window vocab_size ".split()
    ),
    "qwen3": frozenset(
        "attention_bias attention_dropout hidden_act intermediate_size max_window_layers num_key_value_heads "
        "rms_norm_eps use_sliding_window vocab_size ".split()
    ),
    "deepseek_v2": frozenset(
        "attention_bias attention_dropout first_k_dense_replace hidden_act initializer_range intermediate_size "
        "kv_lora_rank mlp_bias moe_intermediate_size n_group n_routed_experts n_shared_experts num_experts "
        "num_experts_per_tok num_key_value_heads q_lora_rank qk_nope_head_dim qk_rope_head_dim rms_norm_eps "
        "routed_scaling_factor topk_group topk_method v_head_dim vocab_size ".split()
    ),
    "deepseek_v3": frozenset(
        "attention_bias attention_dropout first_k_dense_replace hidden_act initializer_range intermediate_size "
        "kv_lora_rank moe_intermediate_size n_group n_routed_experts n_shared_experts norm_topk_prob "
        "num_experts_per_tok num_key_value_heads num_local_experts num_mtp_layers num_nextn_predict_layers "
        "q_lora_rank qk_nope_head_dim qk_rope_head_dim rms_norm_eps rope_interleave routed_scaling_factor "
        "topk_group v_head_dim vocab_size ".split()
    ),
    "deepseek_v32": frozenset(
        "attention_bias attention_dropout first_k_dense_replace hidden_act index_head_dim index_n_heads "
        "index_topk initializer_range intermediate_size kv_lora_rank mlp_layer_types moe_intermediate_size "
        "n_group n_routed_experts n_shared_experts norm_topk_prob num_experts num_experts_per_tok "
        "num_key_value_heads num_local_experts q_lora_rank qk_nope_head_dim qk_rope_head_dim rms_norm_eps "
        "routed_scaling_factor topk_group v_head_dim vocab_size ".split()
    ),
    "glm4_moe": frozenset(
        "attention_bias attention_dropout first_k_dense_replace hidden_act initializer_range intermediate_size "
        "moe_intermediate_size n_group n_routed_experts n_shared_experts norm_topk_prob num_experts_per_tok "
        "num_key_value_heads num_local_experts num_mtp_layers num_nextn_predict_layers rms_norm_eps "
        "routed_scaling_factor topk_group use_qk_norm vocab_size ".split()
    ),
}

# Read of rope_scaling or rope_parameters by each type of scaling.
ROPE: dict[str, frozenset[str]] = {
    "dynamic": frozenset("factor partial_rotary_factor rope_theta rope_type type ".split()),
    "linear": frozenset("factor partial_rotary_factor rope_theta rope_type type ".split()),
    "llama3": frozenset(
        "factor high_freq_factor low_freq_factor original_max_position_embeddings partial_rotary_factor "
        "rope_theta rope_type type ".split()
    ),
    "longrope": frozenset(
        "attention_factor factor long_factor original_max_position_embeddings partial_rotary_factor rope_theta "
        "rope_type short_factor type ".split()
    ),
    "proportional": frozenset("factor partial_rotary_factor rope_theta rope_type type ".split()),
    "yarn": frozenset(
        "attention_factor beta_fast beta_slow factor mscale mscale_all_dim original_max_position_embeddings "
        "partial_rotary_factor rope_theta rope_type truncate type ".split()
    ),
}

# What each configuration class takes for a key that is absent.
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-06,
        "pad_token_id": None,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "head_dim": None,
        "rope_theta": 10000.0,
    },
    "qwen2": {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
        "layer_types": None,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
        "rope_theta": 10000.0,
    },
    "qwen3": {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
        "layer_types": None,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
        "rope_theta": 10000.0,
    },
    "deepseek_v2": {
        "vocab_size": 102400,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-06,
        "pad_token_id": None,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "head_dim": None,
        "first_k_dense_replace": 0,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "n_group": None,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "routed_scaling_factor": 1.0,
        "topk_group": None,
        "topk_method": "greedy",
        "v_head_dim": 128,
        "num_experts_per_tok": None,
        "moe_intermediate_size": 1407,
        "rope_theta": 10000.0,
    },
    "deepseek_v3": {
        "vocab_size": 129280,
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "n_shared_experts": 1,
        "n_routed_experts": 256,
        "routed_scaling_factor": 2.5,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "qk_nope_head_dim": 128,
        "n_group": 8,
        "topk_group": 4,
        "num_experts_per_tok": 8,
        "first_k_dense_replace": 3,
        "norm_topk_prob": True,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-06,
        "pad_token_id": None,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "tie_word_embeddings": False,
        "rope_interleave": True,
        "attention_bias": False,
        "num_nextn_predict_layers": 1,
        "rope_theta": 10000.0,
    },
    "deepseek_v32": {
        "vocab_size": 129280,
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "n_shared_experts": 1,
        "n_routed_experts": 256,
        "routed_scaling_factor": 2.5,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "qk_nope_head_dim": 128,
        "n_group": 8,
        "topk_group": 4,
        "num_experts_per_tok": 8,
        "norm_topk_prob": True,
        "hidden_act": "silu",
        "max_position_embeddings": 163840,
        "rms_norm_eps": 1e-06,
        "pad_token_id": None,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "tie_word_embeddings": False,
        "mlp_layer_types": None,
        "attention_bias": False,
        "index_topk": 2048,
        "index_head_dim": 128,
        "index_n_heads": 64,
        "head_dim": 64,
        "first_k_dense_replace": 3,
        "layer_types": None,
        "rope_theta": 10000.0,
    },
    "glm4_moe": {
        "vocab_size": 151552,
        "hidden_size": 4096,
        "intermediate_size": 10944,
        "num_hidden_layers": 46,
        "num_attention_heads": 96,
        "num_key_value_heads": 8,
        "hidden_act": "silu",
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-05,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "moe_intermediate_size": 1408,
        "num_experts_per_tok": 8,
        "n_shared_experts": 1,
        "n_routed_experts": 128,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "norm_topk_prob": True,
        "use_qk_norm": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "num_nextn_predict_layers": 1,
        "rope_theta": 10000.0,
    },
}
