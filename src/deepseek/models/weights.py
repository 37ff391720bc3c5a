"""The weights of a model under the names of `families.weights`: views into its parameters, to be filled or read."""

import re

from torch import Tensor

from deepseek.families.weights import weight_shapes
from deepseek.models.decoder import Model

_EXPERT = re.compile(r"(.*\.mlp\.experts\.)(\d+)\.(gate|up|down)_proj\.weight")
_PREDICTION_COPY = re.compile(r"model\.layers\.\d+\.(embed_tokens|shared_head\.head)\.weight")


def canonical_tensors(model: Model) -> dict[str, Tensor]:
    """Every weight by name, in order. Views that share memory with the model, each contiguous.

    The copies of embedding and head that files of prediction layers hold are the model's own here.
    """
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    held = {name: tensor.detach() for name, tensor in held.items()}
    return {name: _view(model, held, name) for name in weight_shapes(model.config)}


def shared_with(model: Model, name: str) -> str | None:
    """For a prediction layer's copy of embedding or head: the weight that the model uses instead."""
    match = _PREDICTION_COPY.fullmatch(name)
    if match is None:
        return None
    separate_head = match[1] == "shared_head.head" and model.lm_head is not None
    return "lm_head.weight" if separate_head else "model.embed_tokens.weight"


def _view(model: Model, held: dict[str, Tensor], name: str) -> Tensor:
    if original := shared_with(model, name):
        return held[original]
    match = _EXPERT.fullmatch(name)
    if match is None:
        return held[name]
    at, expert = match[1], int(match[2])
    if match[3] == "down":
        return held[at + "down_proj"][expert]
    gate, up = held[at + "gate_up_proj"][expert].chunk(2)
    return gate if match[3] == "gate" else up
