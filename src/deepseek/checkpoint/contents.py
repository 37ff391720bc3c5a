"""What a checkpoint must hold: exactly the weights of its configuration."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from deepseek.config import ModelConfig
from deepseek.errors import CheckpointError
from deepseek.families.weights import Shape, weight_shapes

# Buffers that old versions of Transformers saved and that follow from the configuration.
_HARMLESS = re.compile(r"(model\.)?(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


def is_harmless(name: str) -> bool:
    """Whether a tensor may be present though the architecture has no such weight."""
    return _HARMLESS.fullmatch(name) is not None


def config_as_stored(config: ModelConfig, names: Iterable[str]) -> ModelConfig:
    """Without prediction layers when `names` have no weight of them: Transformers drops them and keeps the key."""
    layers = range(config.num_hidden_layers, config.num_hidden_layers + config.num_nextn_predict_layers)
    prefixes = tuple(f"model.layers.{layer}." for layer in layers)
    if not prefixes or any(name.startswith(prefixes) for name in names):
        return config
    return replace(config, num_nextn_predict_layers=0)


def shared_weights(config: ModelConfig) -> dict[str, str]:
    """Weights that a file may leave out, each with the weight that it then equals.

    Some files of V3's prediction layers hold no copies of the embedding and the head.
    """
    head = _EMBEDDING if config.tie_word_embeddings else _HEAD
    shared: dict[str, str] = {}
    for depth in range(config.num_nextn_predict_layers):
        at = f"model.layers.{config.num_hidden_layers + depth}."
        shared |= {f"{at}embed_tokens.weight": _EMBEDDING, f"{at}shared_head.head.weight": head}
    return shared


def check_contents(
    config: ModelConfig,
    shapes: Mapping[str, Shape],
    *,
    where: str,
    file_of: Callable[[str], str] | None = None,
    allow_unknown: bool = False,
) -> None:
    """Raise one CheckpointError unless `shapes` (by canonical name) are exactly those of the configuration.

    where: the file or folder, for the message; file_of: the file of a tensor, where there are several.
    allow_unknown: tensors that the architecture does not have are passed over.
    """
    expected = weight_shapes(config)
    for name, shape in shapes.items():
        at = file_of(name) if file_of else where
        if name not in expected:
            if allow_unknown or is_harmless(name):
                continue
            raise CheckpointError(
                f"{at}: unexpected tensor {name!r} of shape {list(shape)}: the configuration ({config.family}) has no "
                "such weight; check that config.json belongs to these weights"
            )
        if shape != expected[name]:
            raise CheckpointError(
                f"{at}: tensor {name!r} has shape {list(shape)}, but the configuration asks for "
                f"{list(expected[name])}; check that config.json belongs to these weights"
            )
    if missing := [name for name in expected if name not in shapes]:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise CheckpointError(
            f"{where}: tensor {missing[0]!r} of shape {list(expected[missing[0]])}{others} missing; the download is "
            "incomplete or config.json belongs to other weights"
        )
