"""Rotary settings: Hugging Face's two spellings and GGUF's keys, to RopeConfig and back."""

import math
from collections.abc import Mapping
from typing import Any

from deepseek.config import RopeConfig
from deepseek.errors import ConfigError
from deepseek.families.gguf_keys import DEFAULT_ROPE_SCALING
from deepseek.families.reader import ConfigReader

_LOG_MULTIPLIER_PER_MSCALE = 0.1  # GGUF stores 0.1 * mscale_all_dim as yarn_log_multiplier (deepseek2 only)


def rope_from_hf(reader: ConfigReader, *, interleaved: bool) -> RopeConfig:
    """Read `rope_parameters` (Transformers 5) or `rope_theta` with `rope_scaling` (hub files).

    Each type reads its own keys, see `reference_keys.ROPE`; others that stand beside them say nothing.
    """
    scaling = ConfigReader(_scaling_from_hf(reader), f"{reader.where}: rope_scaling")
    theta = scaling.number("rope_theta", reader.number("rope_theta", 10000.0))
    reader.must_be("partial_rotary_factor", 1)
    scaling.must_be("partial_rotary_factor", 1)
    kind = scaling.text("rope_type", None) or scaling.text("type", None) or "default"
    length = reader.integer("max_position_embeddings")
    original = reader.integer("original_max_position_embeddings", None)  # wins over the one inside, as in Transformers
    original = original or scaling.integer("original_max_position_embeddings", None) or length
    if kind == "default":
        return RopeConfig(theta=theta, interleaved=interleaved)
    if kind == "linear":
        return RopeConfig(theta=theta, interleaved=interleaved, scaling="linear", factor=scaling.number("factor"))
    if kind == "llama3":
        return RopeConfig(
            theta=theta,
            interleaved=interleaved,
            scaling="llama3",
            factor=scaling.number("factor"),
            original_max_position_embeddings=original,
            low_freq_factor=scaling.number("low_freq_factor"),
            high_freq_factor=scaling.number("high_freq_factor"),
        )
    if kind == "yarn":
        return _yarn_from_hf(scaling, theta, length / original, original, interleaved)
    raise ConfigError(
        f"{scaling.where}: rope_type {kind!r} is not computed; this version runs default, linear, llama3, yarn"
    )


def _scaling_from_hf(reader: ConfigReader) -> Mapping[str, Any]:
    """rope_scaling, or rope_parameters where it is absent or empty; both only where they agree."""
    old, new = reader.mapping("rope_scaling"), reader.mapping("rope_parameters")
    for key in old.keys() & new.keys():
        if old[key] != new[key]:
            raise ConfigError(
                f"{reader.where}: rope_scaling.{key} is {old[key]!r}, but rope_parameters.{key} is {new[key]!r}; "
                "remove one of the two"
            )
    if old:
        _refuse_what_is_lost(reader, old, new)
    merged = {**new, **old}
    if nested := sorted(key for key, value in merged.items() if isinstance(value, Mapping)):
        raise ConfigError(
            f"{reader.where}: rope_parameters.{nested[0]}: this version runs only one set of rotary settings for all "
            "layers; write its keys into rope_parameters itself if they hold for every layer"
        )
    return merged


def _refuse_what_is_lost(reader: ConfigReader, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raises ConfigError for what rope_parameters says alone, where Transformers does not see it."""
    kind = old.get("rope_type") or old.get("type") or "default"
    known = {
        "rope_theta": reader.number("rope_theta", 10000.0),
        "rope_type": kind,
        "type": kind,
        "partial_rotary_factor": 1,
    }
    for key in sorted(new.keys() - old.keys()):
        if new[key] not in (None, known.get(key)):
            raise ConfigError(
                f"{reader.where}: rope_parameters.{key} is {new[key]!r}, but rope_scaling does not say so, and "
                "Transformers reads rope_scaling alone where both are given; remove one of the two"
            )


def _yarn_from_hf(scaling: ConfigReader, theta: float, ratio: float, original: int, interleaved: bool) -> RopeConfig:
    """`attn_factor` (R1-0528-Qwen3) is read by no version of Transformers: there it changes nothing, so here too."""
    return RopeConfig(
        theta=theta,
        interleaved=interleaved,
        scaling="yarn",
        factor=scaling.number("factor", ratio),
        original_max_position_embeddings=original,
        beta_fast=scaling.number("beta_fast", None) or 32.0,
        beta_slow=scaling.number("beta_slow", None) or 1.0,
        mscale=scaling.number("mscale", None) or None,
        mscale_all_dim=scaling.number("mscale_all_dim", None) or None,
        attention_factor=scaling.number("attention_factor", None),
        truncate=scaling.boolean("truncate", True),
    )


def rope_to_hf(rope: RopeConfig) -> dict[str, Any]:
    """`rope_theta` and, when scaled, `rope_scaling`: the spelling that every version of Transformers reads."""
    if rope.scaling == "none":
        return {"rope_theta": rope.theta}
    names = {
        "linear": ("factor",),
        "llama3": ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
        "yarn": (
            *("factor", "original_max_position_embeddings", "beta_fast", "beta_slow"),
            *("mscale", "mscale_all_dim", "attention_factor", "truncate"),
        ),
    }[rope.scaling]
    values = {name: getattr(rope, name) for name in names}
    scaling = {name: value for name, value in values.items() if value is not None}
    return {"rope_theta": rope.theta, "rope_scaling": {"rope_type": rope.scaling, **scaling}}


def rope_from_gguf(reader: ConfigReader, *, interleaved: bool = False, latent: bool = False) -> RopeConfig:
    """Read `{arch}.rope.*`. Llama 3's scaling is not among them: it is a tensor, see `llama3_divisors`.

    latent: only there is yarn_log_multiplier read.
    """
    theta = reader.number("rope.freq_base", 10000.0)
    kind = reader.text("rope.scaling.type", DEFAULT_ROPE_SCALING)
    old_factor = reader.number("rope.scale_linear", 0.0)
    factor = reader.number("rope.scaling.factor", old_factor) or 1.0
    attention = reader.number("rope.scaling.attn_factor", 1.0)
    original = reader.integer("rope.scaling.original_context_length", None) or reader.integer("context_length")
    if kind not in ("none", "linear", "yarn"):
        raise ConfigError(
            f"{reader.where}: rope.scaling.type {kind!r} is not computed; this version runs none, linear, yarn"
        )
    if attention != 1 and (latent or kind != "yarn"):
        raise ConfigError(
            f"{reader.where}: rope.scaling.attn_factor is {attention}, which this version computes only for yarn "
            "without latent attention; convert this model from its safetensors"
        )
    if kind == "none" or (factor == 1 and attention == 1):
        return RopeConfig(theta=theta, interleaved=interleaved)
    if kind == "linear":
        return RopeConfig(theta=theta, interleaved=interleaved, scaling="linear", factor=factor)
    multiplier = reader.number("rope.scaling.yarn_log_multiplier", None) if latent else None
    mscale = None if multiplier is None else round(multiplier / _LOG_MULTIPLIER_PER_MSCALE, 6)
    return RopeConfig(
        theta=theta,
        interleaved=interleaved,
        scaling="yarn",
        factor=factor,
        original_max_position_embeddings=original,
        beta_fast=reader.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=reader.number("rope.scaling.yarn_beta_slow", 1.0),
        mscale=mscale,
        mscale_all_dim=mscale,
        # what cos and sin are multiplied by; GGUF's attn_factor is relative to YaRN's own
        attention_factor=None if attention == 1 else attention * yarn_mscale(factor, 1.0),
    )


def yarn_mscale(factor: float, mscale: float) -> float:
    """YaRN's attention temperature (arXiv 2309.00071, section 3.4), as DeepSeek and Transformers compute it."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def yarn_attention_factor(rope: RopeConfig) -> float:
    """What YaRN multiplies cosines and sines by."""
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return yarn_mscale(rope.factor, rope.mscale) / yarn_mscale(rope.factor, rope.mscale_all_dim)
    return yarn_mscale(rope.factor, 1.0)


def rope_to_gguf(rope: RopeConfig, *, latent: bool = False) -> dict[str, Any]:
    """Keys under `{arch}.`. Raises ConfigError for what GGUF has no key for. latent: see `rope_from_gguf`."""
    keys: dict[str, Any] = {"rope.freq_base": float(rope.theta)}
    if rope.scaling in ("none", "llama3"):  # llama3 goes into the tensor rope_freqs.weight
        return keys
    keys |= {"rope.scaling.type": rope.scaling, "rope.scaling.factor": float(rope.factor)}
    if rope.scaling == "linear":
        return keys
    if not rope.truncate:
        raise ConfigError("rope.truncate is false, for which GGUF has no key; keep this model in safetensors")
    keys |= {
        "rope.scaling.original_context_length": rope.original_max_position_embeddings,
        "rope.scaling.yarn_beta_fast": float(rope.beta_fast),
        "rope.scaling.yarn_beta_slow": float(rope.beta_slow),
    }
    return keys | (_latent_yarn_to_gguf(rope) if latent else _yarn_factor_to_gguf(rope))


def _latent_yarn_to_gguf(rope: RopeConfig) -> dict[str, Any]:
    if rope.mscale is not None and rope.mscale != rope.mscale_all_dim:
        raise ConfigError(
            f"rope.mscale ({rope.mscale}) differs from rope.mscale_all_dim ({rope.mscale_all_dim}), for which GGUF has "
            "no key; keep this model in safetensors"
        )
    if not rope.mscale_all_dim:
        return {}
    return {"rope.scaling.yarn_log_multiplier": _LOG_MULTIPLIER_PER_MSCALE * rope.mscale_all_dim}


def _yarn_factor_to_gguf(rope: RopeConfig) -> dict[str, Any]:
    """What cos and sin are multiplied by, where it is not YaRN's own factor."""
    relative = yarn_attention_factor(rope) / yarn_mscale(rope.factor, 1.0)
    return {} if relative == 1 else {"rope.scaling.attn_factor": relative}
