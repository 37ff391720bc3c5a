"""What a store of an architecture holds, and in which order: neighbours in the file are read one after the other.

Names are those of `families.weights`, with three exceptions. `lm_head.weight` is always there, also with tied
embeddings. A prediction layer's copies of the embedding and the head are not: they equal the main ones. `kv_b_proj` is
cut into its heads and kept in each orientation that latent attention uses, all heads of one kind behind one another:
    self_attn.k_up.H      (qk_nope_head_dim, kv_lora_rank): keys from the latent
    self_attn.k_absorb.H  (kv_lora_rank, qk_nope_head_dim): its transpose, for queries that meet the latent itself
    self_attn.v_up.H      (v_head_dim, kv_lora_rank): values from the latent
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from deepseek.config import MlaConfig, ModelConfig
from deepseek.families.weights import Shape, weight_shapes

Kind = Literal["matrix", "vector", "rows"]
Role = Literal["linear", "sensitive", "head", "latent", "none"]
LatentPart = Literal["k_up", "k_absorb", "v_up"]

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

_EXPERT = re.compile(r"\.mlp\.experts\.(\d+)\.")

# Matrices of a layer that read the same activations stand together; experts follow, in their own order.
_ORDER = (
    *("eh_proj", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    *("self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa", "self_attn.indexer.wk", "self_attn.indexer.weights_proj"),
    *("self_attn.q_b_proj", "self_attn.indexer.wq_b", "self_attn.kv_b_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "mlp.gate"),
    *("mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj", "mlp.shared_experts.down_proj"),
)
_RANK = {f"{module}.weight": rank for rank, module in enumerate(_ORDER)}
_SENSITIVE = ("mlp.gate.weight", "self_attn.indexer.weights_proj.weight")


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor of the store. rows: outputs; a vector has one. weight: the checkpoint's weight that it is made of.

    part, head: which piece of kv_b_proj. starts_expert: an expert's first matrix, which begins a page.
    """

    name: str
    kind: Kind
    role: Role
    rows: int
    inputs: int
    weight: str
    part: LatentPart | None = None
    head: int = 0
    starts_expert: bool = False


def slots_of(config: ModelConfig) -> Iterator[Slot]:
    """Every tensor, in the order of the file."""
    shapes = weight_shapes(config)
    head = EMBEDDING if config.tie_word_embeddings else HEAD
    for prefix, group in groupby(shapes, key=_layer_prefix):
        names = list(group)
        if prefix:
            yield from _layer(config, prefix, {name: shapes[name] for name in names})
            continue
        for name in names:
            yield _slot(name, shapes[name])
        if names[-1] in ("model.norm.weight", HEAD) and HEAD not in names:
            yield Slot(HEAD, "matrix", "head", *_two(shapes[head]), head)


def is_copy(name: str) -> bool:
    """Whether a weight is a prediction layer's copy of the embedding or the head."""
    return name.startswith("model.layers.") and name.endswith((".embed_tokens.weight", ".shared_head.head.weight"))


def expert_prefix(layer: int, expert: int) -> str:
    return f"model.layers.{layer}.mlp.experts.{expert}."


def _layer_prefix(name: str) -> str:
    found = re.match(r"model\.layers\.\d+\.", name)
    return found[0] if found else ""


def _layer(config: ModelConfig, prefix: str, shapes: dict[str, Shape]) -> Iterator[Slot]:
    names = sorted(shapes, key=lambda name: (len(shapes[name]), _RANK.get(name.removeprefix(prefix), len(_RANK))))
    for name in names:
        if name.endswith("self_attn.kv_b_proj.weight"):
            assert config.mla is not None
            yield from _latent(name, config.mla, config.num_attention_heads)
        elif not is_copy(name):
            yield _slot(name, shapes[name])


def _latent(name: str, mla: MlaConfig, heads: int) -> Iterator[Slot]:
    nope, rank = mla.qk_nope_head_dim, mla.kv_lora_rank
    parts: tuple[tuple[LatentPart, int, int], ...] = (
        ("k_up", nope, rank),
        ("k_absorb", rank, nope),
        ("v_up", mla.v_head_dim, rank),
    )
    stem = name.removesuffix("kv_b_proj.weight")
    for part, rows, inputs in parts:
        for head in range(heads):
            yield Slot(f"{stem}{part}.{head}.weight", "matrix", "latent", rows, inputs, name, part, head)


def _slot(name: str, shape: Shape) -> Slot:
    if len(shape) == 1:
        return Slot(name, "vector", "none", 1, shape[0], name)
    if name.endswith("embed_tokens.weight"):
        return Slot(name, "rows", "none", *_two(shape), name)
    starts_expert = _EXPERT.search(name) is not None and name.endswith(".gate_proj.weight")
    return Slot(name, "matrix", _role(name), *_two(shape), name, starts_expert=starts_expert)


def _role(name: str) -> Role:
    if name.endswith(_SENSITIVE):
        return "sensitive"
    return "head" if name == HEAD else "linear"


def _two(shape: Shape) -> tuple[int, int]:
    rows, inputs = shape
    return rows, inputs
