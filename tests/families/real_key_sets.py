"""Key sets of published config.json files, at tiny sizes: makers, fine-tuners, quantizers' leftovers, merges.

Sizes are cut and values of no interest left as they are published; the keys are what matters.
"""

from typing import Any

_SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
_SIZES |= {"num_attention_heads": 4, "max_position_embeddings": 128}
_LATENT = {"kv_lora_rank": 16, "q_lora_rank": 12, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
_EXPERTS = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_shared_experts": 1}
_EXPERTS |= {"first_k_dense_replace": 1, "n_group": 2, "topk_group": 1}
_PLAIN = {**_SIZES, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
_LATENT_HEADS = {**_SIZES, **_LATENT, "num_key_value_heads": 4, "bos_token_id": 0, "eos_token_id": 1}

_TINY: dict[str, dict[str, Any]] = {
    "llama": _PLAIN,
    "qwen2": _PLAIN,
    "qwen3": {**_PLAIN, "head_dim": 8},
    "deepseek": {**_PLAIN, **_EXPERTS},
    "deepseek_v2": {**_LATENT_HEADS, **_EXPERTS, "topk_method": "group_limited_greedy"},
    "deepseek_v3": {**_LATENT_HEADS, **_EXPERTS},
    "deepseek_v32": {**_LATENT_HEADS, **_EXPERTS, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 8},
    "glm4_moe": {**_PLAIN, **_EXPERTS, "partial_rotary_factor": 1.0},
}


def tiny(family: str, **keys: Any) -> dict[str, Any]:
    """The smallest config.json of a family, with `keys` over it."""
    return {"model_type": family, **_TINY[family], **keys}


def _saved(version: str, **keys: Any) -> dict[str, Any]:
    """What Transformers 4 writes into every file."""
    return {
        "_name_or_path": "some/where",
        "torch_dtype": "bfloat16",
        "transformers_version": version,
        "use_cache": True,
        "initializer_range": 0.02,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        **keys,
    }


def _llama(**keys: Any) -> dict[str, Any]:
    common = {"architectures": ["LlamaForCausalLM"], "attention_bias": False, "mlp_bias": False, "pretraining_tp": 1}
    return tiny("llama", **{**_saved("4.43.0"), **common, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, **keys})


def _qwen(family: str, **keys: Any) -> dict[str, Any]:
    window = {"use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 28}
    return tiny(family, **{**_saved("4.43.1"), **window, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, **keys})


def _deepseek(family: str, **keys: Any) -> dict[str, Any]:
    common = {
        "auto_map": {"AutoConfig": f"configuration_{family}.Config", "AutoModel": f"modeling_{family}.Model"},
        "attention_bias": False,
        "aux_loss_alpha": 0.001,
        "seq_aux": True,
        "ep_size": 1,
        "moe_layer_freq": 1,
        "pretraining_tp": 1,
        "rope_theta": 10000,
        "rms_norm_eps": 1e-6,
    }
    return tiny(family, **{**_saved("4.33.1"), **common, **keys})


_LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
_YARN = {"factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0, "type": "yarn"}
_YARN |= {"original_max_position_embeddings": 64}
_FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [128, 128]}
_V3 = {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": True, "routed_scaling_factor": 2.5}
_V3 |= {"num_nextn_predict_layers": 1, "rope_scaling": _YARN}
_V2 = {"scoring_func": "softmax", "norm_topk_prob": False, "routed_scaling_factor": 16.0}
_FULL = ["full_attention", "full_attention"]

PUBLISHED: dict[str, dict[str, Any]] = {
    "Llama 2": _llama(rope_scaling=None, rope_theta=10000.0, bos_token_id=1, eos_token_id=2, max_length=4096),
    "Llama 1, converted early": tiny(
        "llama",
        max_sequence_length=2048,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=1,
        hidden_act="silu",
        rms_norm_eps=1e-6,
        torch_dtype="float16",
        transformers_version="4.27.0.dev0",
        use_cache=True,
        initializer_range=0.02,
        tie_word_embeddings=False,
        pad_token=None,
    ),
    "Llama 3.1 Instruct": _llama(rope_scaling={"rope_type": "llama3", **_LLAMA3}, eos_token_id=[90, 91, 92]),
    "Llama 3.2": _llama(rope_scaling={"rope_type": "llama3", **_LLAMA3}, head_dim=8, tie_word_embeddings=True),
    "Llama 3.3": _llama(rope_scaling={"rope_type": "llama3", **_LLAMA3}, bos_token_id=3, head_dim=8),
    "SmolLM2": _llama(is_llama_config=True, rope_interleaved=False, rope_scaling=None, tie_word_embeddings=True),
    "SmolLM2, for JavaScript": _llama(**{"transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}}),
    "TinyLlama": _llama(rope_scaling=None, rope_theta=10000.0, torch_dtype="float32", pad_token_id=0),
    "Yi": _llama(rope_scaling=None, rope_theta=5000000.0, pad_token_id=0, model_max_length=4096),
    "Yi, with quotes of a data set": _llama(dataset={"name": "chat"}, prompt_template="{}", license="other"),
    "DeepSeek LLM": _llama(rope_scaling=None, bos_token_id=93, eos_token_id=94),
    "DeepSeek Coder": _llama(rope_scaling={"factor": 4.0, "type": "linear"}, rope_theta=100000),
    "DeepSeek Coder, of exllama": _llama(rope_scaling={"factor": 4.0, "type": "linear", "finetuned": True}, n_ctx=512),
    "R1-Distill-Llama": _llama(rope_scaling={"rope_type": "llama3", **_LLAMA3}, eos_token_id=94),
    "Vicuna 16k": _llama(rope_scaling={"factor": 4.0, "type": "linear"}, max_sequence_length=128, pad_token_id=0),
    "unsloth": _llama(unsloth_version="2025.3.19", unsloth_fixed=True, pad_token_id=4),
    "axolotl": _llama(eos_token_id=2, torch_dtype="bfloat16", use_cache=False, axolotl_config="config.yml"),
    "mergekit": _llama(
        _name_or_path="./merge", transformers_version="4.44.1", merged_from=["a", "b"], quantization_config=None
    ),
    "Transformers 5": tiny(
        "llama",
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
        transformers_version="5.2.0",
        hidden_act="silu",
        rope_parameters={"rope_theta": 500000.0, "rope_type": "llama3", **_LLAMA3},
        pad_token_id=None,
    ),
    "Transformers 5, plain": _llama(
        rope_parameters={"rope_theta": 10000.0, "rope_type": "default"}, rope_theta=10000.0
    ),
    "Qwen2.5": _qwen("qwen2"),
    "Qwen2.5 Math": _qwen("qwen2", rope_theta=10000.0, max_window_layers=21, sliding_window=4096),
    "Qwen2.5 1M": _qwen("qwen2", dual_chunk_attention_config={"chunk_size": 262144, "local_size": 8192}),
    "Qwen2.5, the text of VL": _qwen(
        "qwen2", use_mrope=False, rope_scaling={"type": "default", "mrope_section": [1, 1, 2]}
    ),
    "Qwen2.5 with YaRN": _qwen(
        "qwen2", rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    ),
    "Qwen2, by Transformers 4.56": _qwen("qwen2", layer_types=_FULL, sliding_window=None, dtype="bfloat16"),
    "R1-Distill-Qwen": _qwen("qwen2", use_mrope=False, sliding_window=4096, max_window_layers=21),
    "Qwen3": _qwen(
        "qwen3", head_dim=8, attention_bias=False, rope_scaling=None, sliding_window=None, layer_types=_FULL
    ),
    "R1-0528-Qwen3": _qwen(
        "qwen3",
        head_dim=8,
        attention_bias=False,
        rope_scaling={
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "attn_factor": 0.8782,
        },
    ),
    "DeepSeekMoE": _deepseek("deepseek", scoring_func="softmax", norm_topk_prob=False, n_group=None, topk_group=None),
    "V2": _deepseek("deepseek_v2", **_V2, rope_scaling={**_YARN, "mscale": 0.707, "mscale_all_dim": 0.707}),
    "V2-Lite": _deepseek(
        "deepseek_v2", **_V2, topk_method="greedy", q_lora_rank=None, n_group=1, rope_scaling=_YARN, head_dim=64
    ),
    "V3": _deepseek("deepseek_v3", **_V3, quantization_config=_FP8),
    "V3.1": _deepseek("deepseek_v3", **_V3, quantization_config={**_FP8, "scale_fmt": "ue8m0"}),
    "V3, by Transformers": _deepseek(
        "deepseek_v3", **_V3, head_dim=8, qk_head_dim=24, rope_interleave=True, num_local_experts=8, use_mla=True
    ),
    "Moonlight": _deepseek(
        "deepseek_v3", **{**_V3, "rope_scaling": None, "num_nextn_predict_layers": 0}, q_lora_rank=None
    ),
    "V3.2": _deepseek("deepseek_v32", **_V3, quantization_config={**_FP8, "scale_fmt": "ue8m0"}),
    "GLM-4.5's layout": tiny(
        "glm4_moe",
        **_saved("4.54.0"),
        attention_bias=True,
        use_qk_norm=True,
        norm_topk_prob=True,
        rope_scaling=None,
        routed_scaling_factor=1.0,
        head_dim=8,
        num_nextn_predict_layers=0,
        rope_theta=1000000,
        rms_norm_eps=1e-5,
    ),
}
