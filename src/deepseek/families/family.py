"""What a family is: four mappings between ModelConfig and the two foreign descriptions, and what they share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deepseek.config import ModelConfig
from deepseek.errors import ConfigError
from deepseek.families.reader import ConfigReader
from deepseek.families.rope import rope_to_hf


@dataclass(frozen=True, kw_only=True)
class GgufSource:
    """What a GGUF file says of its model, beside the weights themselves.

    reader: its metadata, with the architecture as prefix ("llama."). shapes: by GGUF tensor name, outermost first.
    rope_divisors: the tensor rope_freqs.weight (Llama 3's scaling) or None.
    """

    reader: ConfigReader
    shapes: Mapping[str, tuple[int, ...]]
    rope_divisors: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of models. name is its `model_type`, hf_class its entry in `architectures`.

    rotates_pairs_in_gguf: q and k rows are stored reordered there, so that llama.cpp rotates neighbouring pairs.
    """

    name: str
    hf_class: str
    gguf_architecture: str
    rotates_pairs_in_gguf: bool
    from_hf: Callable[[ConfigReader], ModelConfig]
    to_hf: Callable[[ModelConfig], dict[str, Any]]
    from_gguf: Callable[[GgufSource], ModelConfig]
    to_gguf: Callable[[ModelConfig], dict[str, Any]]


# Keys of config.json that change nothing in the forward pass: bookkeeping, initialisation, training losses, parallel
# layouts, generation defaults, and values that Transformers derives from other keys when it saves.
HARMLESS_HF = (
    *("architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "_name_or_path", "auto_map"),
    *("initializer_range", "use_cache", "attention_dropout", "pretraining_tp", "ep_size", "aux_loss_alpha", "seq_aux"),
    *("output_router_logits", "router_aux_loss_coef", "qk_head_dim", "_attn_implementation_autoset", "unsloth_fixed"),
    *("is_llama_config", "transformers.js_config", "return_dict", "output_hidden_states", "output_attentions"),
    *("problem_type", "id2label", "label2id", "chunk_size_feed_forward", "is_encoder_decoder", "is_decoder"),
    *("experts_implementation", "attn_implementation", "_attn_implementation", "use_mla"),
)


def common_from_hf(reader: ConfigReader) -> dict[str, Any]:
    """The fields that every family reads alike."""
    reader.harmless(HARMLESS_HF)
    reader.must_be("hidden_act", "silu")
    heads = reader.integer("num_attention_heads")
    return {
        "vocab_size": reader.integer("vocab_size"),
        "hidden_size": reader.integer("hidden_size"),
        "intermediate_size": reader.integer("intermediate_size"),
        "num_hidden_layers": reader.integer("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": reader.integer("num_key_value_heads", heads),
        "max_position_embeddings": reader.integer("max_position_embeddings"),
        "rms_norm_eps": reader.number("rms_norm_eps", 1e-6),
        "tie_word_embeddings": reader.boolean("tie_word_embeddings", False),
        "bos_token_id": reader.integer("bos_token_id", None),
        "eos_token_ids": _token_ids(reader, "eos_token_id"),
        "pad_token_id": _pad_token_id(reader),
        "fp8_block": _fp8_block(reader),
    }


def head_dim_from_hf(reader: ConfigReader) -> int:
    """`head_dim`, or hidden_size over the heads, which must then come out whole."""
    hidden, heads = reader.integer("hidden_size"), reader.integer("num_attention_heads")
    given: int | None = reader.integer("head_dim", None)
    if given is not None:
        return given
    if heads <= 0 or hidden % heads:
        raise ConfigError(
            f"{reader.where}: hidden_size ({hidden}) must be a multiple of num_attention_heads ({heads}) unless "
            "head_dim is given"
        )
    return int(hidden // heads)


def sliding_window_from_hf(reader: ConfigReader) -> dict[str, Any]:
    """Qwen's use_sliding_window, sliding_window, max_window_layers and the layer_types derived from them."""
    on = reader.boolean("use_sliding_window", False)
    window, first = reader.integer("sliding_window", None), reader.integer("max_window_layers", 0)
    layers = reader.integer("num_hidden_layers")
    window = window if on else None
    first = first if on else 0
    expected = ["sliding_attention" if window is not None and i >= first else "full_attention" for i in range(layers)]
    reader.must_be("layer_types", expected)
    return {"sliding_window": window, "max_window_layers": first}


def common_to_hf(config: ModelConfig, family: Family) -> dict[str, Any]:
    """The inverse of `common_from_hf`. FP8 blocks are not written: saved weights are no longer FP8."""
    eos = config.eos_token_ids
    return {
        "architectures": [family.hf_class],
        "model_type": family.name,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": eos[0] if len(eos) == 1 else list(eos) or None,
        "pad_token_id": config.pad_token_id,
        **rope_to_hf(config.rope),
    }


def sliding_window_to_hf(config: ModelConfig) -> dict[str, Any]:
    if config.sliding_window is None:
        return {"use_sliding_window": False}
    return {
        "use_sliding_window": True,
        "sliding_window": config.sliding_window,
        "max_window_layers": config.max_window_layers,
    }


def common_from_gguf(source: GgufSource) -> dict[str, Any]:
    """The fields that every architecture stores alike. The vocabulary is what the embedding table says."""
    reader, shapes = source.reader, source.shapes
    if "token_embd.weight" not in shapes:
        raise ConfigError(f"{reader.where}: the tensor token_embd.weight is missing")
    reader.harmless(["vocab_size", "attention.causal", "attention.layer_norm_epsilon", "tensor_data_layout"])
    heads = reader.integer("attention.head_count")
    special = {kind: _gguf_token_id(source, kind) for kind in ("bos", "eos", "eot", "padding")}
    return {
        "vocab_size": shapes["token_embd.weight"][0],
        "hidden_size": reader.integer("embedding_length"),
        "intermediate_size": reader.integer("feed_forward_length"),
        "num_hidden_layers": reader.integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": reader.integer("attention.head_count_kv", heads),
        "max_position_embeddings": reader.integer("context_length"),
        "rms_norm_eps": _round_float32(reader.number("attention.layer_norm_rms_epsilon")),
        "tie_word_embeddings": "output.weight" not in shapes,
        "bos_token_id": special["bos"],
        "eos_token_ids": tuple(dict.fromkeys(t for t in (special["eos"], special["eot"]) if t is not None)),
        "pad_token_id": special["padding"],
    }


def _gguf_token_id(source: GgufSource, kind: str) -> int | None:
    token: int | None = ConfigReader(source.reader.values, source.reader.where, "tokenizer.ggml.").integer(
        f"{kind}_token_id", None
    )
    return token


def head_dim_from_gguf(source: GgufSource) -> int:
    """Key length; llama.cpp's default is the hidden size over the heads."""
    reader = source.reader
    hidden, heads = reader.integer("embedding_length"), reader.integer("attention.head_count")
    head = int(reader.integer("attention.key_length", hidden // max(heads, 1)))
    reader.must_be("attention.value_length", head)
    reader.must_be("rope.dimension_count", head)
    return head


def common_to_gguf(config: ModelConfig) -> dict[str, Any]:
    """Keys under `{arch}.` that every architecture writes alike."""
    if config.sliding_window is not None:
        raise ConfigError("sliding_window has no key in GGUF for this family; keep this model in safetensors")
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
    }


def head_dim_to_gguf(config: ModelConfig) -> dict[str, Any]:
    return {
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "rope.dimension_count": config.head_dim,
    }


def _round_float32(value: float) -> float:
    """GGUF keeps float32: 9.999999747378752e-06 was written as 1e-05."""
    return float(f"{value:.6g}")


def _token_ids(reader: ConfigReader, key: str) -> tuple[int, ...]:
    value = reader.raw(key, [])
    ids = value if isinstance(value, list) else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        raise ConfigError(f"{reader.where}: {key} must be a token id or a list of them, not {value!r}")
    return tuple(ids)


def _pad_token_id(reader: ConfigReader) -> int | None:
    """Some releases write -1 for "none"."""
    value: int | None = reader.integer("pad_token_id", None)
    return None if value is None or value < 0 else value


def _fp8_block(reader: ConfigReader) -> tuple[int, int] | None:
    """V3's block-scaled FP8; every other quantisation of a hub file is refused by its name."""
    given = reader.mapping("quantization_config")
    if not given:
        return None
    fp8 = ConfigReader(given, f"{reader.where}: quantization_config")
    fp8.must_be("quant_method", "fp8")
    fp8.must_be("fmt", "e4m3")
    fp8.must_be("scale_fmt", "ue8m0", "float")
    fp8.harmless(["activation_scheme", "modules_to_not_convert", "dequantize"])
    block = fp8.raw("weight_block_size")
    fp8.finish(allow_unknown=False)
    if not (isinstance(block, list) and len(block) == 2 and all(isinstance(n, int) and n > 0 for n in block)):
        raise ConfigError(f"{fp8.where}: weight_block_size must be two whole numbers, not {block!r}")
    return block[0], block[1]
