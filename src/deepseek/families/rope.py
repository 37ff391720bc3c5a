"""Rotary settings: Hugging Face's two spellings and GGUF's keys, to RopeConfig and back."""

import math
from typing import Any

from deepseek.config import RopeConfig
from deepseek.errors import ConfigError
from deepseek.families.reader import ConfigReader

_LOG_MULTIPLIER_PER_MSCALE = 0.1  # GGUF stores 0.1 * mscale_all_dim as yarn_log_multiplier (deepseek2 only)


def rope_from_hf(reader: ConfigReader, *, interleaved: bool, default_theta: float = 10000.0) -> RopeConfig:
    """Read `rope_parameters` (Transformers 5) or `rope_theta` with `rope_scaling` (hub files)."""
    given = {**reader.mapping("rope_scaling"), **reader.mapping("rope_parameters")}
    scaling = ConfigReader(given, f"{reader.where}: rope_scaling")
    theta = reader.number("rope_theta", None)
    theta = scaling.number("rope_theta", default_theta if theta is None else theta)
    scaling.must_be("partial_rotary_factor", 1, 1.0)
    kind = scaling.text("rope_type", None) or scaling.text("type", "default")
    scaling.harmless(["type"])
    length = reader.integer("max_position_embeddings")
    if kind == "default":
        rope = RopeConfig(theta=theta, interleaved=interleaved)
    elif kind == "linear":
        rope = RopeConfig(theta=theta, interleaved=interleaved, scaling="linear", factor=scaling.number("factor"))
    elif kind == "llama3":
        rope = RopeConfig(
            theta=theta,
            interleaved=interleaved,
            scaling="llama3",
            factor=scaling.number("factor"),
            original_max_position_embeddings=scaling.integer("original_max_position_embeddings", length),
            low_freq_factor=scaling.number("low_freq_factor"),
            high_freq_factor=scaling.number("high_freq_factor"),
        )
    elif kind == "yarn":
        rope = _yarn_from_hf(scaling, theta, length, interleaved)
    else:
        raise ConfigError(
            f"{scaling.where}: rope_type {kind!r} is unknown; this version runs default, linear, llama3, yarn"
        )
    scaling.finish(allow_unknown=False)
    return rope


def _yarn_from_hf(scaling: ConfigReader, theta: float, length: int, interleaved: bool) -> RopeConfig:
    # attn_factor (R1-0528-Qwen3) is read by no version of Transformers: there it changes nothing, so here too.
    scaling.harmless(["attn_factor"])
    original = scaling.integer("original_max_position_embeddings", length)
    return RopeConfig(
        theta=theta,
        interleaved=interleaved,
        scaling="yarn",
        factor=scaling.number("factor", length / original),
        original_max_position_embeddings=original,
        beta_fast=scaling.number("beta_fast", 32.0),
        beta_slow=scaling.number("beta_slow", 1.0),
        mscale=scaling.number("mscale", None),
        mscale_all_dim=scaling.number("mscale_all_dim", None),
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


def rope_from_gguf(reader: ConfigReader, *, interleaved: bool) -> RopeConfig:
    """Read `{arch}.rope.*`. Llama 3's scaling is not among them: it is a tensor, see `llama3_divisors`."""
    theta = reader.number("rope.freq_base", 10000.0)
    kind = reader.text("rope.scaling.type", "none")
    reader.harmless(["rope.scaling.finetuned"])
    reader.must_be("rope.scaling.yarn_ext_factor", 1, 1.0)
    log_multiplier = reader.number("rope.scaling.yarn_log_multiplier", None)
    if kind == "none":
        return RopeConfig(theta=theta, interleaved=interleaved)
    if kind == "linear":
        factor = reader.number("rope.scaling.factor")
        return RopeConfig(theta=theta, interleaved=interleaved, scaling="linear", factor=factor)
    if kind != "yarn":
        raise ConfigError(
            f"{reader.where}: rope.scaling.type {kind!r} is unknown; this version runs none, linear, yarn"
        )
    mscale = None if log_multiplier is None else round(log_multiplier / _LOG_MULTIPLIER_PER_MSCALE, 6)
    return RopeConfig(
        theta=theta,
        interleaved=interleaved,
        scaling="yarn",
        factor=reader.number("rope.scaling.factor"),
        original_max_position_embeddings=reader.integer("rope.scaling.original_context_length"),
        beta_fast=reader.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=reader.number("rope.scaling.yarn_beta_slow", 1.0),
        mscale=mscale,
        mscale_all_dim=mscale,
        attention_factor=_scaled(reader.number("rope.scaling.attn_factor", None), _yarn_default_attention(reader)),
    )


def _yarn_default_attention(reader: ConfigReader) -> float:
    """What cos and sin are multiplied by when nothing is said; GGUF's attn_factor is relative to it."""
    return yarn_mscale(reader.number("rope.scaling.factor"), 1.0)


def yarn_mscale(factor: float, mscale: float) -> float:
    """YaRN's attention temperature (arXiv 2309.00071, section 3.4), as DeepSeek and Transformers compute it."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _scaled(value: float | None, by: float) -> float | None:
    return None if value is None else value * by


def rope_to_gguf(rope: RopeConfig) -> dict[str, Any]:
    """Keys under `{arch}.`. Raises ConfigError for what GGUF has no key for."""
    keys: dict[str, Any] = {"rope.freq_base": float(rope.theta)}
    if rope.scaling in ("none", "llama3"):  # llama3 goes into the tensor rope_freqs.weight
        return keys
    keys |= {"rope.scaling.type": rope.scaling, "rope.scaling.factor": float(rope.factor)}
    if rope.scaling == "linear":
        return keys
    if not rope.truncate:
        raise ConfigError("rope.truncate is false, for which GGUF has no key; keep this model in safetensors")
    if rope.mscale is not None and rope.mscale != rope.mscale_all_dim:
        raise ConfigError(
            f"rope.mscale ({rope.mscale}) differs from rope.mscale_all_dim ({rope.mscale_all_dim}), for which GGUF has "
            "no key; keep this model in safetensors"
        )
    keys |= {
        "rope.scaling.original_context_length": rope.original_max_position_embeddings,
        "rope.scaling.yarn_beta_fast": float(rope.beta_fast),
        "rope.scaling.yarn_beta_slow": float(rope.beta_slow),
    }
    if rope.mscale_all_dim:
        keys["rope.scaling.yarn_log_multiplier"] = _LOG_MULTIPLIER_PER_MSCALE * rope.mscale_all_dim
    if rope.attention_factor is not None:
        keys["rope.scaling.attn_factor"] = rope.attention_factor / yarn_mscale(rope.factor, 1.0)
    return keys
