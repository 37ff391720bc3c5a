"""One small file a family of models: how its config.json, its GGUF metadata and its weight names map to ours.

Add a family: write its file, name it in `_FAMILIES`. Nothing here reads weights or imports PyTorch.
"""

from collections.abc import Mapping
from typing import Any

from deepseek.config import ModelConfig
from deepseek.errors import ConfigError
from deepseek.families import deepseek, deepseek_v2, deepseek_v3, deepseek_v32, glm4_moe, llama, qwen2, qwen3
from deepseek.families.family import Family, GgufSource
from deepseek.families.reader import ConfigReader
from deepseek.families.unread import refuse_uncomputed_gguf, refuse_uncomputed_hf

__all__ = ["Family", "GgufSource", "config_from_gguf", "config_from_hf", "config_to_gguf", "config_to_hf", "family_of"]

_FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY
    for module in (llama, qwen2, qwen3, deepseek, deepseek_v2, deepseek_v3, deepseek_v32, glm4_moe)
}
FAMILY_NAMES = tuple(_FAMILIES)


def family_of(config: ModelConfig) -> Family:
    return _named(config.family, "family")


def config_from_hf(
    values: Mapping[str, Any], *, where: str = "config.json", allow_unknown: bool = False
) -> ModelConfig:
    """Read a Hugging Face configuration. Raises ConfigError naming the key that is missing, wrong or not computed.

    Code that a repository brings (`auto_map`) is never run, whatever the family.
    allow_unknown: pass over keys that the reference implementation reads and this version does not compute.
    """
    reader, family = hf_reader(values, where)
    try:
        config = family.from_hf(reader)
    except ConfigError as error:
        raise error if str(error).startswith(where) else ConfigError(f"{where}: {error}") from None
    refuse_uncomputed_hf(reader, config, allow=allow_unknown)
    return config


def hf_reader(values: Mapping[str, Any], where: str) -> tuple[ConfigReader, Family]:
    """A config.json with the defaults of its family, and that family. Raises ConfigError."""
    family = _named(ConfigReader(values, where).text("model_type"), f"{where}: model_type")
    return ConfigReader(values, where, defaults=family.hf_defaults), family


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """The config.json that Transformers reads."""
    return family_of(config).to_hf(config)


def config_from_gguf(
    metadata: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    rope_divisors: tuple[float, ...] | None = None,
    where: str = "GGUF metadata",
    allow_unknown: bool = False,
) -> ModelConfig:
    """Read GGUF metadata; `shapes` are those of its tensors, outermost dimension first. Raises ConfigError.

    allow_unknown: pass over keys that llama.cpp reads and this version does not compute.
    """
    reader, family = gguf_reader(metadata, shapes, where)
    try:
        config = family.from_gguf(GgufSource(reader=reader, shapes=shapes, rope_divisors=rope_divisors))
    except ConfigError as error:
        raise error if str(error).startswith(where) else ConfigError(f"{where}: {error}") from None
    refuse_uncomputed_gguf(reader, config, allow=allow_unknown)
    return config


def gguf_reader(
    metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], where: str
) -> tuple[ConfigReader, Family]:
    """The keys under the architecture's name, and the family that it is. Raises ConfigError."""
    architecture = ConfigReader(metadata, where).text("general.architecture")
    reader = ConfigReader(metadata, where, prefix=f"{architecture}.")
    return reader, _of_gguf(architecture, reader, shapes)


def config_to_gguf(config: ModelConfig) -> dict[str, Any]:
    """`general.architecture` and the keys under it. Raises ConfigError for what GGUF cannot say."""
    family = family_of(config)
    prefix = family.gguf_architecture
    return {
        "general.architecture": prefix,
        **{f"{prefix}.{key}": value for key, value in family.to_gguf(config).items()},
    }


def _of_gguf(architecture: str, reader: ConfigReader, shapes: Mapping[str, tuple[int, ...]]) -> Family:
    """deepseek2 is V2 or V3: V3 routes by sigmoid (and, in files without that key, has a correction bias)."""
    if architecture == "deepseek2":
        unsaid = 2 if _has_correction_bias(shapes) else 1
        sigmoid = (reader.integer("expert_gating_func", 0) or unsaid) == 2
        return deepseek_v3.FAMILY if sigmoid else deepseek_v2.FAMILY
    known = {family.gguf_architecture: family for family in _FAMILIES.values()}
    if architecture not in known:
        raise ConfigError(
            f"{reader.where}: general.architecture {architecture!r} is not among those this version runs: "
            + ", ".join(sorted(known))
        )
    return known[architecture]


def _has_correction_bias(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return any(name.endswith("exp_probs_b.bias") for name in shapes)


def _named(name: str, where: str) -> Family:
    if name not in _FAMILIES:
        raise ConfigError(f"{where} {name!r} is not among those this version runs: {', '.join(_FAMILIES)}")
    return _FAMILIES[name]
