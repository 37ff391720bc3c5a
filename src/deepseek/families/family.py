"""What a family is: four mappings between ModelConfig and the two foreign descriptions, and what they share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deepseek.config import ModelConfig
from deepseek.errors import ConfigError
from deepseek.families.limits import MAX_LAYERS
from deepseek.families.reader import ConfigReader, is_integer
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
    hf_defaults: what the reference implementation takes for a key that a config.json lacks.
    """

    name: str
    hf_class: str
    gguf_architecture: str
    rotates_pairs_in_gguf: bool
    from_hf: Callable[[ConfigReader], ModelConfig]
    to_hf: Callable[[ModelConfig], dict[str, Any]]
    from_gguf: Callable[[GgufSource], ModelConfig]
    to_gguf: Callable[[ModelConfig], dict[str, Any]]
    hf_defaults: Mapping[str, Any]


# Names that Transformers gives the activation x * sigmoid(x).
SILU = ("silu", "swish")

# Older names of a layer's kind of attention, and what Transformers makes of them.
_LAYER_TYPES = {"attention": "full_attention", "deepseek_sparse_attention": "indexed_attention"}


def common_from_hf(reader: ConfigReader) -> dict[str, Any]:
    """The fields that every family reads alike."""
    reader.must_be("hidden_act", *SILU)
    heads, vocabulary = reader.integer("num_attention_heads"), reader.integer("vocab_size")
    bos, pad = (_token_ids(reader, f"{kind}_token_id", vocabulary) for kind in ("bos", "pad"))
    return {
        "vocab_size": vocabulary,
        "hidden_size": reader.integer("hidden_size"),
        "intermediate_size": reader.integer("intermediate_size"),
        "num_hidden_layers": layers_from_hf(reader),
        "num_attention_heads": heads,
        "num_key_value_heads": _key_value_heads(reader, heads),
        "max_position_embeddings": reader.integer("max_position_embeddings"),
        "rms_norm_eps": reader.number("rms_norm_eps"),
        "tie_word_embeddings": reader.boolean("tie_word_embeddings"),
        "bos_token_id": bos[0] if bos else None,
        "eos_token_ids": _token_ids(reader, "eos_token_id", vocabulary),
        "pad_token_id": pad[0] if pad else None,
        "fp8_block": _fp8_block(reader),
    }


def layers_from_hf(reader: ConfigReader) -> int:
    layers: int = reader.integer("num_hidden_layers")
    if layers > MAX_LAYERS:
        raise ConfigError(f"{reader.where}: num_hidden_layers is {layers:,}; the limit is {MAX_LAYERS:,}")
    return layers


def _key_value_heads(reader: ConfigReader, heads: int) -> int:
    """Null and 0 mean as many as there are query heads."""
    return int(reader.nullable_integer("num_key_value_heads") or heads)


def head_dim_from_hf(reader: ConfigReader) -> int:
    """`head_dim`, or hidden_size over the heads, which must then come out whole."""
    hidden, heads = reader.integer("hidden_size"), reader.integer("num_attention_heads")
    given: int | None = reader.integer("head_dim", None)
    if given:
        return given
    if heads <= 0 or hidden % heads:
        raise ConfigError(
            f"{reader.where}: hidden_size ({hidden}) must be a multiple of num_attention_heads ({heads}) unless "
            "head_dim is given"
        )
    return int(hidden // heads)


def sliding_window_from_hf(reader: ConfigReader) -> dict[str, Any]:
    """Qwen's use_sliding_window, sliding_window, max_window_layers; layer_types, if given, say which layers slide."""
    on, layers = reader.boolean("use_sliding_window"), layers_from_hf(reader)
    window, first = reader.nullable_integer("sliding_window"), reader.integer("max_window_layers")
    kinds = layer_types_from_hf(reader)
    if kinds:
        first = kinds.index("sliding_attention") if "sliding_attention" in kinds else layers
    window = window if on and window and first < layers else None
    expected = ["sliding_attention" if window and layer >= first else "full_attention" for layer in range(layers)]
    if kinds and kinds != expected:
        reader.must_be("layer_types", expected)
    return {"sliding_window": window, "max_window_layers": first if window else 0}


def layer_types_from_hf(reader: ConfigReader) -> list[Any]:
    """`layer_types` in today's names; empty where the file has none."""
    kinds = reader.raw("layer_types", None) or []
    if not isinstance(kinds, list):
        raise ConfigError(f"{reader.where}: layer_types must be a list with a type for each layer, not {kinds!r}")
    return [_LAYER_TYPES.get(str(kind), kind) for kind in kinds]


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
    heads = reader.per_layer_integer("attention.head_count")
    special = {kind: _gguf_token_id(source, kind) for kind in ("bos", "eos", "eot", "padding")}
    return {
        "vocab_size": shapes["token_embd.weight"][0],
        "hidden_size": reader.integer("embedding_length"),
        "intermediate_size": reader.per_layer_integer("feed_forward_length"),
        "num_hidden_layers": reader.integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": reader.per_layer_integer("attention.head_count_kv", heads) or heads,
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
    rows = source.shapes["token_embd.weight"][0]
    return token if token is None or 0 <= token < rows else None  # writers use 2**32 - 1 and leftovers for none


def head_dim_from_gguf(source: GgufSource) -> int:
    """Key length; llama.cpp's default is the hidden size over the heads."""
    reader = source.reader
    hidden, heads = reader.integer("embedding_length"), reader.per_layer_integer("attention.head_count")
    head = int(reader.integer("attention.key_length", 0) or hidden // max(heads, 1))
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


def _token_ids(reader: ConfigReader, key: str, vocabulary: int) -> tuple[int, ...]:
    """A token id or a list of them. One outside the vocabulary (some releases write -1) can never occur: it is none."""
    value = None if reader.is_null(key) else reader.raw(key, None)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token in ids:
        if not is_integer(token):
            raise ConfigError(f"{reader.where}: {key} must be a token id or a list of them, not {value!r}")
    return tuple(int(token) for token in ids if 0 <= token < vocabulary)


def _fp8_block(reader: ConfigReader) -> tuple[int, int] | None:
    """V3's block-scaled FP8; every other quantization of a hub file is refused by its name."""
    given = reader.mapping("quantization_config")
    if not given or _is_switched_off(given):
        return None
    fp8 = ConfigReader(given, f"{reader.where}: quantization_config")
    if (method := fp8.text("quant_method", "of no name")) != "fp8":
        raise ConfigError(
            f"{fp8.where}: quant_method is {method!r}; this version reads fp8 only. Take the model without "
            "quantization or as GGUF; where the weights here are not quantized, remove quantization_config"
        )
    fp8.must_be("fmt", "e4m3")
    fp8.must_be("scale_fmt", "ue8m0", "float")
    block = fp8.raw("weight_block_size", [128, 128])
    if not (isinstance(block, list) and len(block) == 2 and all(isinstance(n, int) and n > 0 for n in block)):
        raise ConfigError(f"{fp8.where}: weight_block_size must be two whole numbers, not {block!r}")
    return block[0], block[1]


def _is_switched_off(given: Mapping[str, Any]) -> bool:
    """A training script's configuration of bitsandbytes, saved with a model that it did not quantize."""
    switches = [given.get(key) for key in ("load_in_8bit", "load_in_4bit", "_load_in_8bit", "_load_in_4bit")]
    return given.get("quant_method") == "bitsandbytes" and False in switches and True not in switches
