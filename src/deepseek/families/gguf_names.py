"""The names of weights in GGUF files, from and to the canonical ones of `families.weights`.

GGUF stacks the experts of a layer into one tensor, and splits latent attention's kv_b_proj into attn_k_b (transposed)
and attn_v_b; older files keep attn_kv_b. Everything else is renamed one to one.
"""

import re
from dataclasses import dataclass

ROPE_DIVISORS = "rope_freqs.weight"  # Llama 3's scaling, which has no metadata

_TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}

_IN_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_kv_b",
    "self_attn.indexer.wq_b": "indexer.attn_q_b",
    "self_attn.indexer.wk": "indexer.attn_k",
    "self_attn.indexer.k_norm": "indexer.k_norm",
    "self_attn.indexer.weights_proj": "indexer.proj",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    "mlp.experts.gate_proj": "ffn_gate_exps",
    "mlp.experts.up_proj": "ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
    "embed_tokens": "nextn.embed_tokens",
    "enorm": "nextn.enorm",
    "hnorm": "nextn.hnorm",
    "eh_proj": "nextn.eh_proj",
    "shared_head.norm": "nextn.shared_head_norm",
    "shared_head.head": "nextn.shared_head_head",
}

_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_EXPERT = re.compile(r"mlp\.experts\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class GgufName:
    """name: the tensor in the file. expert: which of its stacked matrices, None for the whole tensor."""

    name: str
    expert: int | None = None


def gguf_name(name: str) -> GgufName:
    """Where the weight `name` lies. kv_b_proj gives the older attn_kv_b; see `split_kv_b` for its two halves."""
    if name in _TOP:
        return GgufName(_TOP[name])
    layer, rest = _parts(name)
    if rest in _IN_LAYER:
        return GgufName(f"blk.{layer}.{_IN_LAYER[rest]}")
    expert = _EXPERT.fullmatch(rest)
    index, rest = (int(expert[1]), f"mlp.experts.{expert[2]}") if expert else (None, rest)
    module, _, kind = rest.rpartition(".")
    return GgufName(f"blk.{layer}.{_IN_LAYER[module]}.{kind}", index)


def is_kv_b(name: str) -> bool:
    return name.endswith(".self_attn.kv_b_proj.weight")


def split_kv_b(name: str) -> tuple[str, str]:
    """attn_k_b, of shape (heads, kv_lora_rank, nope), and attn_v_b, of shape (heads, value, kv_lora_rank)."""
    layer, _ = _parts(name)
    return f"blk.{layer}.attn_k_b.weight", f"blk.{layer}.attn_v_b.weight"


def is_rotated(name: str) -> bool:
    """Whether this is a query or key projection, whose rows GGUF may reorder (`Family.rotates_pairs_in_gguf`)."""
    return re.search(r"\.self_attn\.[qk]_proj\.(weight|bias)$", name) is not None


def _parts(name: str) -> tuple[str, str]:
    found = _LAYER.fullmatch(name)
    assert found is not None, name
    return found[1], found[2]
