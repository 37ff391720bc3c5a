"""The names and shapes of every weight of an architecture: what a checkpoint must hold, neither more nor less.

Names are those of the Hugging Face hub files, one name an expert. All other layouts (fused experts, GGUF) are mapped
to and from these.
"""

from collections.abc import Iterator

from deepseek.config import ModelConfig

Shape = tuple[int, ...]

CORRECTION_BIAS = "mlp.gate.e_score_correction_bias"


def weight_shapes(config: ModelConfig, *, with_mtp: bool = True) -> dict[str, Shape]:
    """Every weight by name, in the order of the layers. Linear weights are (out, in).

    with_mtp: the multi-token prediction layers too. With tied embeddings there is no lm_head.weight.
    """
    return dict(_all_weights(config, with_mtp))


def _all_weights(config: ModelConfig, with_mtp: bool) -> Iterator[tuple[str, Shape]]:
    vocabulary, hidden = config.vocab_size, config.hidden_size
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for layer in range(config.num_hidden_layers):
        yield from _layer(config, layer)
    yield "model.norm.weight", (hidden,)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", (vocabulary, hidden)
    if with_mtp:
        for depth in range(config.num_nextn_predict_layers):
            yield from mtp_weights(config, config.num_hidden_layers + depth)


def mtp_weights(config: ModelConfig, layer: int) -> Iterator[tuple[str, Shape]]:
    """One prediction layer (V3, section 2.2): two norms, a projection of both, a decoder layer, its own head."""
    vocabulary, hidden = config.vocab_size, config.hidden_size
    at = f"model.layers.{layer}."
    yield at + "embed_tokens.weight", (vocabulary, hidden)
    yield at + "enorm.weight", (hidden,)
    yield at + "hnorm.weight", (hidden,)
    yield at + "eh_proj.weight", (hidden, 2 * hidden)
    yield from _layer(config, layer)
    yield at + "shared_head.norm.weight", (hidden,)
    yield at + "shared_head.head.weight", (vocabulary, hidden)


def _layer(config: ModelConfig, layer: int) -> Iterator[tuple[str, Shape]]:
    at = f"model.layers.{layer}."
    yield at + "input_layernorm.weight", (config.hidden_size,)
    attention = _latent_attention(config) if config.mla else _grouped_attention(config)
    for name, shape in attention:
        yield f"{at}self_attn.{name}", shape
    yield at + "post_attention_layernorm.weight", (config.hidden_size,)
    if config.is_moe_layer(layer):
        yield from _experts(config, at)
    else:
        yield from _mlp(config, at + "mlp.", config.intermediate_size)


def _linear(name: str, out: int, into: int, bias: bool = False) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (out, into)
    if bias:
        yield f"{name}.bias", (out,)


def _mlp(config: ModelConfig, at: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield from _linear(at + "gate_proj", width, config.hidden_size, config.mlp_bias)
    yield from _linear(at + "up_proj", width, config.hidden_size, config.mlp_bias)
    yield from _linear(at + "down_proj", config.hidden_size, width, config.mlp_bias)


def _experts(config: ModelConfig, at: str) -> Iterator[tuple[str, Shape]]:
    moe = config.moe
    assert moe is not None
    yield at + "mlp.gate.weight", (moe.n_routed_experts, config.hidden_size)
    if moe.has_correction_bias:
        yield at + CORRECTION_BIAS, (moe.n_routed_experts,)
    width, hidden = moe.moe_intermediate_size, config.hidden_size
    for expert in range(moe.n_routed_experts):
        yield f"{at}mlp.experts.{expert}.gate_proj.weight", (width, hidden)
        yield f"{at}mlp.experts.{expert}.up_proj.weight", (width, hidden)
        yield f"{at}mlp.experts.{expert}.down_proj.weight", (hidden, width)
    if moe.n_shared_experts:
        yield from _mlp(config, at + "mlp.shared_experts.", moe.shared_intermediate_size)


def _grouped_attention(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    hidden, head = config.hidden_size, config.head_dim
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    yield from _linear("q_proj", queries, hidden, config.attention_bias)
    yield from _linear("k_proj", keys, hidden, config.attention_bias)
    yield from _linear("v_proj", keys, hidden, config.attention_bias)
    yield from _linear("o_proj", hidden, queries, config.attention_output_bias)
    if config.qk_norm:
        yield "q_norm.weight", (head,)
        yield "k_norm.weight", (head,)


def _latent_attention(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    mla, hidden, heads = config.mla, config.hidden_size, config.num_attention_heads
    assert mla is not None
    if mla.q_lora_rank is None:
        yield from _linear("q_proj", heads * mla.qk_head_dim, hidden)
    else:
        yield from _linear("q_a_proj", mla.q_lora_rank, hidden, config.attention_bias)
        yield "q_a_layernorm.weight", (mla.q_lora_rank,)
        yield from _linear("q_b_proj", heads * mla.qk_head_dim, mla.q_lora_rank)
    yield from _linear("kv_a_proj_with_mqa", mla.kv_lora_rank + mla.qk_rope_head_dim, hidden, config.attention_bias)
    yield "kv_a_layernorm.weight", (mla.kv_lora_rank,)
    yield from _linear("kv_b_proj", heads * (mla.qk_nope_head_dim + mla.v_head_dim), mla.kv_lora_rank)
    yield from _linear("o_proj", hidden, heads * mla.v_head_dim, config.attention_output_bias)
    if config.indexer is not None:
        indexer = config.indexer
        assert mla.q_lora_rank is not None
        yield from _linear("indexer.wq_b", indexer.index_n_heads * indexer.index_head_dim, mla.q_lora_rank)
        yield from _linear("indexer.wk", indexer.index_head_dim, hidden)
        yield "indexer.k_norm.weight", (indexer.index_head_dim,)
        yield "indexer.k_norm.bias", (indexer.index_head_dim,)
        yield from _linear("indexer.weights_proj", indexer.index_n_heads, hidden)
