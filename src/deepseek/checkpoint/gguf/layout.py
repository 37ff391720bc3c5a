"""What a GGUF file of an architecture holds: which tensors, of which shape, made of which canonical weights."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from deepseek.config import ModelConfig
from deepseek.errors import ConfigError
from deepseek.families import family_of
from deepseek.families.gguf_names import ROPE_DIVISORS, gguf_name, is_kv_b, is_rotated, split_kv_b
from deepseek.families.weights import Shape, weight_shapes

Made = Literal["as it is", "reordered", "stacked", "k_b", "v_b", "rope divisors"]


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor of the file to be. weights: the canonical ones it is made of, one an expert in a stack; see `Made`."""

    name: str
    shape: Shape
    weights: tuple[str, ...]
    made: Made


def planned_tensors(config: ModelConfig) -> list[PlannedTensor]:
    """In the order of the layers. Raises ConfigError for what GGUF cannot say."""
    shapes = weight_shapes(config)
    stacks: dict[str, list[str]] = {}
    for name in shapes:
        if gguf_name(name).expert is not None:
            stacks.setdefault(gguf_name(name).name, []).append(name)
    planned: dict[str, PlannedTensor] = {}
    for name, shape in shapes.items():
        for tensor in _tensors_of(name, shape, config, stacks):
            planned[tensor.name] = tensor
    return [*planned.values(), *_rope_divisors(config)]


def _tensors_of(name: str, shape: Shape, config: ModelConfig, stacks: dict[str, list[str]]) -> Iterator[PlannedTensor]:
    stored = gguf_name(name)
    if is_kv_b(name):
        mla, heads = config.mla, config.num_attention_heads
        assert mla is not None
        k_b, v_b = split_kv_b(name)
        yield PlannedTensor(k_b, (heads, mla.kv_lora_rank, mla.qk_nope_head_dim), (name,), "k_b")
        yield PlannedTensor(v_b, (heads, mla.v_head_dim, mla.kv_lora_rank), (name,), "v_b")
    elif stored.expert is not None:
        weights = tuple(stacks[stored.name])
        yield PlannedTensor(stored.name, (len(weights), *shape), weights, "stacked")
    elif is_rotated(name) and family_of(config).rotates_pairs_in_gguf:
        yield PlannedTensor(stored.name, shape, (name,), "reordered")
    else:
        yield PlannedTensor(stored.name, shape, (name,), "as it is")


def _rope_divisors(config: ModelConfig) -> Iterator[PlannedTensor]:
    if config.rope.scaling != "llama3":
        return
    if config.family != "llama":
        raise ConfigError(f"rope.scaling llama3 has no place in GGUF for {config.family}; keep safetensors")
    yield PlannedTensor(ROPE_DIVISORS, (config.head_dim // 2,), (), "rope divisors")


def storable_config(config: ModelConfig) -> ModelConfig:
    """Without the prediction layers where llama.cpp would run them as ordinary layers (deepseek2)."""
    runs_them = family_of(config).gguf_architecture == "deepseek2"
    return replace(config, num_nextn_predict_layers=0) if runs_them else config


def differences_in_llama_cpp(config: ModelConfig) -> list[str]:
    """What llama.cpp computes differently from the model's own code, a sentence each; empty is the rule."""
    found = []
    moe, mla, rope = config.moe, config.mla, config.rope
    if rope.scaling == "yarn" and (rope.beta_fast, rope.beta_slow) != (32, 1):
        found.append(
            f"llama.cpp takes YaRN's beta_fast and beta_slow as 32 and 1 here, this model has {rope.beta_fast:g} and "
            f"{rope.beta_slow:g}"
        )
    if config.family == "deepseek_v32" and rope.mscale_all_dim not in (None, 1.0):
        found.append(
            f"llama.cpp takes YaRN's mscale as 1 for this architecture, this model has {rope.mscale_all_dim:g}"
        )
    if moe is not None and moe.topk_method == "group_limited_greedy" and moe.n_group > 1:
        found.append(
            "llama.cpp scores a group of experts by the sum of its two best, this model by its best: it may route "
            "some tokens differently"
        )
    if moe is not None and config.family == "deepseek" and moe.norm_topk_prob:
        found.append("llama.cpp never renormalises the expert weights of this architecture (norm_topk_prob is true)")
    if mla is not None and mla.latent_norm_eps != config.rms_norm_eps:
        found.append(
            f"llama.cpp uses rms_norm_eps ({config.rms_norm_eps:g}) for the latent norms too, this model "
            f"{mla.latent_norm_eps:g}"
        )
    if mla is not None and mla.q_lora_rank is None and config.num_hidden_layers not in (26, 27):
        found.append("llama.cpp loads this architecture without q_lora_rank only with 26 or 27 layers")
    return found
