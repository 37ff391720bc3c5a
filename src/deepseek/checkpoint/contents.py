"""What a checkpoint must hold: all weights of its configuration, and nothing that would belong to what they compute.

Tensors of other parts (a vision tower, a value head, prediction layers nobody asked for) and buffers that follow from
the configuration are ignored and listed. A tensor within a module of ours that the configuration does not know of (a
bias, a scale, an adapter, one more layer) is refused: the result would be another model's.
"""

import logging
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace

from deepseek.config import ModelConfig
from deepseek.errors import CheckpointError
from deepseek.families.weights import Shape, weight_shapes

# Buffers that follow from the configuration, and scales that only a quantized KV cache would use.
_BUFFER = re.compile(
    r".*\b(rotary_emb\.(inv_freq|original_inv_freq|cos_cached|sin_cached)|position_ids|masked_bias|causal_mask"
    r"|self_attn\.bias|self_attn\.(attn\.)?[kv]_scale|self_attn\.kv_scale|self_attn\.[kv]_proj\.output_scale)"
)
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_PREDICTION = ("enorm.weight", "hnorm.weight", "eh_proj.weight")  # what only a multi-token prediction layer has
_OURS = ("model.embed_tokens.", "model.norm.", "lm_head.")

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"

logger = logging.getLogger(__name__)


def is_ignorable(config: ModelConfig, name: str, shape: Shape, names: Container[str]) -> bool:
    """Whether a tensor that is no weight of the configuration changes nothing in what the model computes.

    names: all names of the checkpoint.
    """
    if 0 in shape or _BUFFER.fullmatch(name):
        return True
    layer = _LAYER.fullmatch(name)
    if layer is None:
        return not name.startswith(_OURS)
    beyond = int(layer[1]) >= config.num_hidden_layers + config.num_nextn_predict_layers
    return beyond and any(f"model.layers.{layer[1]}.{part}" in names for part in _PREDICTION)


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
) -> list[str]:
    """Raise one CheckpointError unless `shapes` (by canonical name) hold the weights of the configuration.

    where: the file or folder, for the message; file_of: the file of a tensor, where there are several.
    allow_unknown: also pass over tensors within the model's modules that the architecture does not have.
    Returns the names of ignored tensors, which are logged too.
    """
    expected = weight_shapes(config)
    ignored: list[str] = []
    for name, shape in shapes.items():
        at = file_of(name) if file_of else where
        if name not in expected:
            if not allow_unknown and not is_ignorable(config, name, shape, shapes):
                raise CheckpointError(f"{at}: {_unexpected(name, shape, config)}")
            ignored.append(name)
        elif shape != expected[name]:
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
    log_ignored(where, ignored)
    return ignored


def log_ignored(where: str, names: Sequence[str]) -> None:
    if names:
        listed = ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
        logger.info("%s: %d tensors that this model does not use are ignored: %s", where, len(names), listed)


def _unexpected(name: str, shape: Shape, config: ModelConfig) -> str:
    if ".lora_" in name or ".modules_to_save." in name:
        why = "it is an adapter that is not merged; merge it into its base model (merge_and_unload of PEFT)"
    else:
        why = (
            f"the configuration ({config.family}) has no such weight in that module; check that config.json belongs to "
            "these weights"
        )
    return f"unexpected tensor {name!r} of shape {list(shape)}: {why}"
