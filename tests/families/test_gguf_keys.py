"""Keys of a GGUF header: what llama.cpp does not read is ignored, what says nothing too, the rest refused by name."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepseek.config import ModelConfig, RopeConfig
from deepseek.errors import ConfigError
from deepseek.families import config_from_gguf, config_from_hf, config_to_gguf, family_of
from deepseek.families.gguf_keys import READ_BY_LLAMA_CPP
from deepseek.families.rotation import attention_factor
from real_key_sets import tiny

YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LATENT_YARN = {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}
MODELS = {
    "llama": tiny("llama"),
    "qwen2": tiny("qwen2", rope_scaling=YARN),
    "qwen3": tiny("qwen3"),
    "deepseek": tiny("deepseek"),
    "deepseek2": tiny("deepseek_v3", rope_scaling=LATENT_YARN),
    "deepseek32": tiny("deepseek_v32"),
}


def config_of(architecture: str) -> ModelConfig:
    return config_from_hf(MODELS[architecture])


def header(architecture: str, **keys: Any) -> dict[str, Any]:
    """What is written of the model, with `keys` over it: `__` stands for a dot."""
    own = {f"{architecture}.{key.replace('__', '.')}": value for key, value in keys.items()}
    return {**config_to_gguf(config_of(architecture)), **own}


def read(architecture: str, metadata: dict[str, Any], **more: Any) -> ModelConfig:
    config = config_of(architecture)
    table = (config.vocab_size, config.hidden_size)
    return config_from_gguf(metadata, {"token_embd.weight": table, "output.weight": table}, **more)


# Values with which the model stays what it is.
SAME: dict[str, dict[str, Any]] = {
    "no experts": {"expert_count": 0, "expert_used_count": 0, "expert_group_count": 0},
    "experts of a dense model that has none": {"expert_feed_forward_length": 99, "expert_shared_count": 2},
    "heads by layer": {"attention__head_count": [4, 4], "attention__head_count_kv": [2, 2]},
    "feed-forward by layer": {"feed_forward_length": [48, 48]},
    "scale 1": {"rope__scale_linear": 1.0},
    "scale 0": {"rope__scale_linear": 0.0},
    "linear by 0": {"rope__scaling__type": "linear", "rope__scaling__factor": 0.0},
    "linear by 1": {"rope__scaling__type": "linear", "rope__scaling__factor": 1.0},
    "linear by nothing": {"rope__scaling__type": "linear"},
    "yarn by 1": {"rope__scaling__type": "yarn", "rope__scaling__factor": 1.0},
    "no scaling by 4": {"rope__scaling__type": "none", "rope__scaling__factor": 4.0},
    "finetuned": {"rope__scaling__finetuned": True, "rope__scaling__original_context_length": 64},
    "attention factor 1": {"rope__scaling__attn_factor": 1.0},
    "alpha": {"rope__scaling__alpha": 1000.0},
    "heads of no length": {"attention__key_length": 0},
    "a wide window": {"attention__sliding_window": 4096},
    "a narrow window, which llama.cpp does not read": {"attention__sliding_window": 8},
    "pooling": {"pooling_type": 0},
    "causal": {"attention__causal": True},
    "other epsilon": {"attention__layer_norm_epsilon": 0.5},
    "Granite's scales": {"attention__scale": 0.5, "logit_scale": 8.0, "residual_scale": 0.2, "embedding_scale": 12.0},
    "soft caps": {"final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
    "sections": {"rope__dimension_sections": [1, 1, 2, 0]},
    "size of the output": {"embedding_length_out": 32},
    "labels": {"classifier__output_labels": ["a", "b"]},
    "layout": {"tensor_data_layout": "Meta AI original pth"},
    "a later version": {"some_new_key": 3, "another__new__key": [1.0]},
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_what_says_nothing_changes_nothing(name: str, architecture: str) -> None:
    plain = read(architecture, header(architecture))
    assert plain.rope.scaling == "none"
    assert read(architecture, header(architecture, **SAME[name])) == plain


@pytest.mark.parametrize("architecture", ["deepseek2", "deepseek32"])
@pytest.mark.parametrize("keys", [{"expert_gating_func": 0}, {"attention__temperature_scale": 0.0}])
def test_neutral_values_of_latent_architectures(architecture: str, keys: dict[str, Any]) -> None:
    shapes = {"blk.1.exp_probs_b.bias": (8,)}
    config = config_of(architecture)
    shapes |= dict.fromkeys(("token_embd.weight", "output.weight"), (config.vocab_size, config.hidden_size))
    plain = config_from_gguf(header(architecture), shapes)
    assert plain.moe == config.moe
    assert config_from_gguf(header(architecture, **keys), shapes) == plain


def test_an_expert_scale_of_zero_is_one() -> None:
    config = read("deepseek2", header("deepseek2", expert_weights_scale=0.0, expert_group_count=0))
    assert config.moe is not None
    assert (config.moe.routed_scaling_factor, config.moe.n_group, config.moe.topk_group) == (1.0, 1, 1)


def test_older_keys_of_rotary_scaling() -> None:
    linear = read("llama", header("llama", rope__scaling__type="linear", rope__scaling__factor=4.0))
    assert linear.rope.factor == 4.0
    assert read("llama", header("llama", rope__scale_linear=4.0)) == linear
    assert read("llama", header("llama", rope__scaling__factor=4.0)) == linear  # without a type it is linear
    assert read("llama", header("llama", rope__scale_linear=2.0, rope__scaling__factor=4.0)) == linear
    yarn = read("llama", header("llama", rope__scaling__type="yarn", rope__scaling__factor=4.0))
    assert yarn.rope.original_max_position_embeddings == yarn.max_position_embeddings


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "attention.causal is False; llama.cpp reads it for llama": ("llama", {"attention__causal": False}),
    "expert_count is 8; llama.cpp reads it for qwen2": ("qwen2", {"expert_count": 8, "expert_used_count": 2}),
    "embedding_length_out is 64": ("llama", {"embedding_length_out": 64}),
    "attention.temperature_scale is 0.1": ("deepseek2", {"attention__temperature_scale": 0.1}),
    r"attention.head_count_kv is \[2, 4\]; .*same number": ("llama", {"attention__head_count_kv": [2, 4]}),
    r"feed_forward_length is \[\]": ("llama", {"feed_forward_length": []}),
    "attention.head_count must be a whole number, not '4'": ("llama", {"attention__head_count": "4"}),
    "rope.scaling.type 'longrope' is not computed": ("llama", {"rope__scaling__type": "longrope"}),
    "rope.scaling.attn_factor is 2.0": ("llama", {"rope__scaling__attn_factor": 2.0}),
    "rope.scaling.attn_factor is 1.5": ("deepseek2", {"rope__scaling__attn_factor": 1.5}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_llama_cpp_reads_and_this_version_does_not_is_refused(message: str) -> None:
    architecture, keys = REFUSED[message]
    with pytest.raises(ConfigError, match=message):
        read(architecture, header(architecture, **keys))


def test_what_is_refused_can_be_allowed() -> None:
    metadata = header("llama", attention__causal=False)
    assert read("llama", metadata, allow_unknown=True) == read("llama", header("llama"))


def test_yarn_survives_gguf_with_any_attention_factor() -> None:
    """llama.cpp reads yarn_log_multiplier only with latent attention: elsewhere the factor is written out."""
    rope = config_of("qwen2").rope
    for changes in ({}, {"attention_factor": 1.5}, {"mscale": 0.5, "mscale_all_dim": 1.0}, {"mscale": 1.0}):
        config = replace(config_of("qwen2"), rope=replace(rope, **changes))
        keys = config_to_gguf(config)
        assert "qwen2.rope.scaling.yarn_log_multiplier" not in keys
        back = read("qwen2", keys)
        assert attention_factor(back.rope) == pytest.approx(attention_factor(config.rope))
    latent = config_of("deepseek2")
    assert attention_factor(read("deepseek2", header("deepseek2")).rope) == attention_factor(latent.rope) == 1.0


def test_the_multiplier_of_latent_attention_means_nothing_elsewhere() -> None:
    plain = read("qwen2", header("qwen2"))
    assert read("qwen2", header("qwen2", rope__scaling__yarn_log_multiplier=0.1)) == plain
    assert attention_factor(plain.rope) == pytest.approx(0.1 * math.log(4) + 1)


VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=9)
VALUES |= st.lists(st.integers(0, 9) | st.floats(), max_size=3)


@given(
    st.sampled_from(sorted(READ_BY_LLAMA_CPP)), st.dictionaries(st.text(min_size=1, max_size=30), VALUES, max_size=4)
)
def test_no_key_that_llama_cpp_does_not_read_matters(architecture: str, keys: dict[str, Any]) -> None:
    plain = header(architecture)
    own = {f"{architecture}.{key}": value for key, value in keys.items() if key not in READ_BY_LLAMA_CPP[architecture]}
    assert read(architecture, {**own, **plain}) == read(architecture, plain)


@given(st.sampled_from(sorted(READ_BY_LLAMA_CPP)), st.data())
def test_any_value_of_a_key_that_is_read_is_taken_or_refused_in_words(architecture: str, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(READ_BY_LLAMA_CPP[architecture])))
    metadata = {**header(architecture), f"{architecture}.{key}": data.draw(VALUES)}
    try:
        config = read(architecture, metadata)
    except ConfigError:
        return
    assert family_of(config).gguf_architecture == architecture
    assert isinstance(config.rope, RopeConfig)
