"""What becomes of the keys of a foreign file that no family asks for.

A key that the reference implementation does not read cannot change its result: it is ignored, and so is a value that
says nothing. What the reference reads and this version does not compute is refused by name.
"""

from collections.abc import Callable, Mapping
from typing import Any

from deepseek.config import ModelConfig
from deepseek.errors import ConfigError
from deepseek.families.gguf_keys import READ_BY_LLAMA_CPP
from deepseek.families.reader import ConfigReader
from deepseek.families.reference_keys import READ, SHARED

IsNeutral = Callable[[Any, ModelConfig], bool]

# Read, but without effect on the answers: training, initialization, numerics of the reference, labels, bookkeeping.
WITHOUT_EFFECT_HF = frozenset(
    "attention_dropout initializer_range attn_implementation experts_implementation dtype torch_dtype name_or_path "
    "num_labels output_attentions number_of_conv_states".split()
)
WITHOUT_EFFECT_GGUF = frozenset(
    "vocab_size pooling_type classifier.output_labels attention.key_length_swa attention.value_length_swa "
    "rope.dimension_count_swa rope.dimension_sections rope.scaling.finetuned rope.scaling.alpha "
    "attention.temperature_length".split()
)


def _is_empty(value: Any, _: ModelConfig) -> bool:
    return not value


def _wider_than_context(value: Any, config: ModelConfig) -> bool:
    return not value or (isinstance(value, int | float) and value >= config.max_position_embeddings)


def _all_full(value: Any, config: ModelConfig) -> bool:
    return value in ([], ["full_attention"] * config.num_hidden_layers, ["attention"] * config.num_hidden_layers)


# Values that say nothing, beside null, where they are not simply whatever is false or empty.
NEUTRAL_HF: dict[str, IsNeutral] = {
    "is_causal": lambda value, config: value is True or value == 1,
    "layer_types": _all_full,
    "sliding_window": _wider_than_context,
    "attention_chunk_size": _wider_than_context,
    "transformers_weights": lambda value, config: value in ("", "model.safetensors", "model.safetensors.index.json"),
}
NEUTRAL_GGUF: dict[str, IsNeutral] = {
    "attention.causal": lambda value, config: value is True or value == 1,
    "embedding_length_out": lambda value, config: value in (0, config.hidden_size),
}


def refuse_uncomputed_hf(reader: ConfigReader, config: ModelConfig, *, allow: bool) -> None:
    """Raises ConfigError for the first key of a config.json that Transformers reads and this version does not."""
    read = (SHARED | READ.get(config.family, frozenset())) - WITHOUT_EFFECT_HF
    _refuse(reader, config, read, NEUTRAL_HF, f"Transformers reads it for {config.family}", allow=allow)


def refuse_uncomputed_gguf(reader: ConfigReader, config: ModelConfig, *, allow: bool) -> None:
    """Raises ConfigError for the first key of a GGUF header that llama.cpp reads and this version does not."""
    architecture = reader.prefix.removesuffix(".")
    read = READ_BY_LLAMA_CPP.get(architecture, frozenset()) - WITHOUT_EFFECT_GGUF
    _refuse(reader, config, read, NEUTRAL_GGUF, f"llama.cpp reads it for {architecture}", allow=allow)


def _refuse(
    reader: ConfigReader,
    config: ModelConfig,
    read: frozenset[str],
    neutral: Mapping[str, IsNeutral],
    why: str,
    *,
    allow: bool,
) -> None:
    if allow:
        return
    for key, value in sorted(reader.unread().items()):
        if key in read and not neutral.get(key, _is_empty)(value, config):
            raise ConfigError(
                f"{reader.where}: {reader.prefix}{key} is {str(value)[:60]}; {why}, and this version does not compute "
                "it. Remove the key if the weights do not need it, or accept that answers differ from the reference's "
                "(--allow-unknown-keys, allow_unknown_keys=True)"
            )
