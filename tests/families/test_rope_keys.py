"""rope_scaling and rope_parameters as published files spell them, against the rotary embedding of Transformers."""

import copy
import importlib
from typing import Any

import numpy as np
import pytest

from deepseek.config import ModelConfig
from deepseek.errors import ConfigError
from deepseek.families import config_from_hf
from deepseek.families.rotation import attention_factor, inverse_frequencies, softmax_mscale
from real_key_sets import PUBLISHED, tiny

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA3 = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}
LINEAR = {"type": "linear", "factor": 2.0}
NULLS = ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "short_factor", "long_factor")

# Each pair means the same.
SAME: dict[str, tuple[Any, Any]] = {
    "yarn with finetuned": ({**YARN, "finetuned": True}, YARN),
    "yarn with nulls": ({**YARN, **dict.fromkeys(NULLS)}, YARN),
    "yarn with long factors": ({**YARN, "long_factor": [2.0], "short_factor": [1.0]}, YARN),
    "yarn with zeros": ({**YARN, "beta_fast": 0, "beta_slow": 0, "mscale": 0}, YARN),
    "yarn named twice": ({**YARN, "type": "yarn"}, YARN),
    "the newer name wins": ({**YARN, "type": "linear"}, YARN),
    "yarn with factor null": ({**YARN, "factor": None}, YARN),  # 128 over 32
    "yarn in floats": ({**YARN, "original_max_position_embeddings": 32.0, "factor": 4}, YARN),
    "linear with the original length": ({**LINEAR, "original_max_position_embeddings": 64}, LINEAR),
    "linear with a theta": ({**LINEAR, "rope_theta": 10000}, LINEAR),
    "linear, newer name": ({"rope_type": "linear", "factor": 2}, LINEAR),
    "linear, newer name null": ({**LINEAR, "rope_type": None}, LINEAR),
    "default with factor null": ({"rope_type": "default", "factor": None}, None),
    "default with a factor": ({"type": "default", "factor": 8.0}, None),
    "default with mrope_section": ({"type": "default", "mrope_section": [1, 1, 2]}, None),
    "no type": ({"factor": 8.0}, None),
    "all null": ({"type": None, "factor": None}, None),
    "empty": ({}, None),
    "false": (False, None),
    "an empty string": ("", None),
    "an empty list": ([], None),
    "llama3 with nulls": ({**LLAMA3, "attention_factor": None, "beta_fast": None}, LLAMA3),
    "llama3 without a length": (LLAMA3, {**LLAMA3, "original_max_position_embeddings": 128}),
}


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("name", SAME)
def test_spellings_that_mean_the_same(name: str, key: str) -> None:
    given, plain = SAME[name]
    assert config_from_hf(tiny("llama", **{key: given})) == config_from_hf(tiny("llama", **{key: plain}))


def test_the_length_beside_rope_scaling_wins() -> None:
    config = config_from_hf(tiny("llama", rope_scaling=YARN, original_max_position_embeddings=16))
    assert config.rope.original_max_position_embeddings == 16


AGAINST: dict[str, dict[str, Any]] = {
    "theta inside": tiny("llama", rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
    "theta inside wins": tiny("llama", rope_scaling={**LINEAR, "rope_theta": 500.0}, rope_theta=1000.0),
    "theta outside": tiny("qwen2", rope_scaling=YARN, rope_theta=1000.0),
    "yarn, not truncated": tiny("qwen3", rope_scaling={**YARN, "truncate": False}),
    "yarn with an attention factor": tiny("llama", rope_scaling={**YARN, "attention_factor": 1.5}),
    "yarn with two scales": tiny("llama", rope_scaling={**YARN, "mscale": 0.5, "mscale_all_dim": 1.0}),
    "yarn with one scale": tiny("llama", rope_scaling={**YARN, "mscale": 0.5}),
    "yarn with other turns": tiny("llama", rope_scaling={**YARN, "beta_fast": 8, "beta_slow": 2}),
    "yarn of a length outside": tiny("llama", rope_scaling=YARN, original_max_position_embeddings=16),
    "llama3 of a length outside": tiny("llama", rope_scaling=LLAMA3, original_max_position_embeddings=16),
    "latent yarn": tiny("deepseek_v2", rope_scaling={**YARN, "mscale": 0.7, "mscale_all_dim": 0.7}),
    **{name: values for name, values in PUBLISHED.items() if values["model_type"] != "deepseek"},
}


@pytest.mark.parametrize("name", AGAINST)
def test_rotations_are_those_of_transformers(name: str) -> None:
    values = AGAINST[name]
    ours, (frequencies, factor) = config_from_hf(values), reference(values)
    np.testing.assert_allclose(inverse_frequencies(ours.rope, ours.rope_dim), frequencies, rtol=1e-5)
    assert attention_factor(ours.rope) == pytest.approx(factor)


def reference(values: dict[str, Any]) -> tuple[Any, float]:
    """Frequencies, and what cosines and sines are multiplied by."""
    from transformers import CONFIG_MAPPING

    given = copy.deepcopy(values)
    kind = given.pop("model_type")
    module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    rotary = next(found for name, found in vars(module).items() if name.endswith("RotaryEmbedding"))
    embedding = rotary(config=CONFIG_MAPPING[kind](**given))
    return embedding.inv_freq.numpy(), embedding.attention_scaling


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "su", "ntk", "mrope", "proportional", "llama4"])
def test_scalings_that_are_not_computed_are_refused_by_name(kind: str) -> None:
    for key in ("type", "rope_type"):
        with pytest.raises(ConfigError, match=f"rope_scaling: rope_type '{kind}' is not computed.*yarn"):
            config_from_hf(tiny("llama", rope_scaling={key: kind, "factor": 2.0}))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rope_scaling": LINEAR, "rope_parameters": {**LINEAR, "factor": 3.0}}, "rope_scaling.factor is 2.0, but"),
        (
            {"rope_scaling": LINEAR, "rope_parameters": {**LINEAR, "rope_theta": 77.0}},
            r"rope_parameters.rope_theta is 77.0, .* Transformers reads rope_scaling alone",
        ),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "yarn"}},
            r"rope_parameters.rope_type is 'yarn'",
        ),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2.0}, "rope_parameters": {"beta_fast": 8.0}},
            r"rope_parameters.beta_fast is 8.0",
        ),
        ({"rope_parameters": {"full_attention": YARN, "sliding_attention": {}}}, "only one set of rotary settings"),
        ({"rope_scaling": {**LINEAR, "partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"partial_rotary_factor": 0.25}, "partial_rotary_factor is 0.25"),
        ({"rope_scaling": {"type": "linear"}}, "lacks the key 'factor'"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor must be a finite number"),
        ({"rope_scaling": "linear"}, "rope_scaling must be an object"),
        ({"rope_theta": "10000"}, "rope_theta must be a finite number"),
    ],
)
def test_contradictions_and_wrong_types_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_hf(tiny("llama", **keys))


def test_both_spellings_that_say_the_same_are_taken() -> None:
    both = {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 77.0, "partial_rotary_factor": 1}}
    one = config_from_hf(tiny("llama", rope_scaling=LINEAR, rope_theta=77.0))
    assert config_from_hf(tiny("llama", rope_scaling=LINEAR, rope_theta=77.0, **both)) == one


def test_the_softmax_of_latent_attention_is_scaled_only_by_yarn() -> None:
    """Transformers scales it for every type but default; no release has both, so that is refused."""
    with pytest.raises(ConfigError, match=r"mscale_all_dim is 1\.0 beside the type linear"):
        config_from_hf(tiny("deepseek_v3", rope_scaling={**LINEAR, "mscale_all_dim": 1.0}))
    plain: ModelConfig = config_from_hf(tiny("deepseek_v3", rope_scaling={"type": "default", "mscale_all_dim": 1.0}))
    assert softmax_mscale(plain.rope) == 1.0


def test_partial_rotation_of_glm() -> None:
    """Half of each head where nothing is said, which is not computed; whole heads where it is null or 1."""
    values = tiny("glm4_moe")
    del values["partial_rotary_factor"]
    with pytest.raises(ConfigError, match=r"partial_rotary_factor is 0\.5"):
        config_from_hf(values)
    for keys in ({"partial_rotary_factor": None}, {"rope_parameters": {"partial_rotary_factor": 1.0}}):
        assert config_from_hf({**values, **keys}) == config_from_hf(tiny("glm4_moe"))
