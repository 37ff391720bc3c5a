"""The table of keys that Transformers reads is today's, and each of them is computed, neutral or without effect."""

import contextlib
import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepseek.config import ModelConfig
from deepseek.errors import ConfigError
from deepseek.families import config_from_hf, hf_reader
from deepseek.families.family import SILU
from deepseek.families.reference_keys import DEFAULTS, READ, ROPE, SHARED
from deepseek.families.unread import NEUTRAL_HF, WITHOUT_EFFECT_HF
from real_key_sets import PUBLISHED, tiny

FALSY_IS_NEUTRAL = {"per_layer_config", "kv_sharing_modes"}


def test_the_table_is_what_the_installed_transformers_reads() -> None:
    """In a process of its own: importing every model of Transformers would slow the tests that follow."""
    folder = Path(__file__).parent
    code = "import derive_reference_keys as d; import sys; sys.exit(d.TABLE.read_text() != d.table())"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"run {folder / 'derive_reference_keys.py'}: {done.stderr[-2000:]}"


@pytest.mark.parametrize("family", READ)
def test_each_key_that_is_read_has_a_verdict(family: str) -> None:
    """A key that a new Transformers reads is none of these until someone decides."""
    decided = asked(tiny(family)) | WITHOUT_EFFECT_HF | NEUTRAL_HF.keys() | FALSY_IS_NEUTRAL
    assert READ[family] | SHARED <= decided


def asked(values: dict[str, Any]) -> set[str]:
    """Every key that the family of `values` asks for."""
    reader, family = hf_reader(values, "config.json")
    family.from_hf(reader)
    return reader.asked | {"model_type"}


def test_each_type_of_scaling_reads_its_keys() -> None:
    """Those of the types that are computed; a new key of YaRN must not be ignored."""
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "original_max_position_embeddings"}
    assert ROPE["linear"] <= known
    assert ROPE["llama3"] <= known | {"low_freq_factor", "high_freq_factor"}
    yarn = {"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"}
    assert ROPE["yarn"] <= known | yarn


# How a key is called in ModelConfig, where it is called otherwise; "." leads into a part.
NAMES = {
    "eos_token_id": "eos_token_ids",
    "rope_theta": "rope.theta",
    "rope_interleave": "rope.interleaved",
    "use_qk_norm": "qk_norm",
    **{name: f"mla.{name}" for name in ("kv_lora_rank", "q_lora_rank", "v_head_dim")},
    **{name: f"mla.{name}" for name in ("qk_nope_head_dim", "qk_rope_head_dim")},
    **{name: f"moe.{name}" for name in ("n_routed_experts", "n_shared_experts", "num_experts_per_tok")},
    **{name: f"moe.{name}" for name in ("moe_intermediate_size", "n_group", "topk_group", "topk_method")},
    **{name: f"moe.{name}" for name in ("routed_scaling_factor", "first_k_dense_replace", "norm_topk_prob")},
    **{name: f"indexer.{name}" for name in ("index_n_heads", "index_head_dim", "index_topk")},
}
# What follows from other keys, or needs another key to say anything.
DERIVED = {"head_dim", "layer_types", "mlp_layer_types", "sliding_window", "max_window_layers", "use_sliding_window"}
ELSEWHERE = {"hidden_act", "partial_rotary_factor", "num_labels"}
ELSEWHERE |= {"num_nextn_predict_layers"}  # GLM-4.5's are not computed: a checkpoint that has them is refused


@pytest.mark.parametrize("family", READ)
def test_an_absent_key_has_the_default_of_transformers(family: str) -> None:
    defaults = DEFAULTS[family]
    values = {"model_type": family}
    values |= {"num_experts_per_tok": 6} if family == "deepseek_v2" else {}
    values |= {"partial_rotary_factor": 1.0, "head_dim": 128} if family == "glm4_moe" else {}
    config = config_from_hf(values)
    checked = {key for key, value in defaults.items() if value is not None} - DERIVED - ELSEWHERE
    assert checked >= {"vocab_size", "rms_norm_eps", "max_position_embeddings", "rope_theta", "tie_word_embeddings"}
    for key in checked:
        assert part(config, NAMES.get(key, key)) in (defaults[key], (defaults[key],)), key
    for key in ("bos_token_id", "pad_token_id"):
        assert getattr(config, key) == defaults[key]
    heads = defaults["num_key_value_heads"] or defaults["num_attention_heads"]
    assert config.num_key_value_heads == heads


def part(config: ModelConfig, name: str) -> Any:
    value: Any = config
    for each in name.split("."):
        value = getattr(value, each)
    return value


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_sliding_windows_have_the_defaults_of_transformers(family: str) -> None:
    on = config_from_hf(tiny(family, use_sliding_window=True, num_hidden_layers=40))
    assert (on.sliding_window, on.max_window_layers) == (4096, 28)
    assert config_from_hf(tiny(family, sliding_window=16)).sliding_window is None


def test_silu_has_the_names_that_transformers_gives_it() -> None:
    import torch
    from transformers.activations import ACT2FN

    x = torch.linspace(-4, 4, 33)
    for name in SILU:
        np.testing.assert_array_equal(ACT2FN[name](x), torch.nn.functional.silu(x))


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_published_is_read(name: str) -> None:
    """The keys of a published config.json, at tiny sizes: the same model as from the keys that are read alone."""
    values = PUBLISHED[name]
    config = config_from_hf(values)
    needed = asked(values) | {"model_type"}
    assert config_from_hf({key: value for key, value in values.items() if key in needed}) == config


@pytest.mark.parametrize("name", [name for name in PUBLISHED if PUBLISHED[name]["model_type"] in READ])
def test_what_is_published_is_read_as_transformers_reads_it(name: str) -> None:
    from transformers import CONFIG_MAPPING

    values = copy.deepcopy(PUBLISHED[name])
    ours, family = config_from_hf(values), values.pop("model_type")
    theirs = CONFIG_MAPPING[family](**values)
    for key in DEFAULTS[family].keys() - DERIVED - ELSEWHERE - {"rope_theta", "eos_token_id"}:
        mine, other = part(ours, NAMES.get(key, key)), getattr(theirs, key)
        if key in ("n_group", "topk_group") and ours.moe and ours.moe.topk_method == "greedy":
            assert mine == 1  # where there are no groups their number says nothing
        else:
            assert mine == other, key
    ends = theirs.eos_token_id
    assert list(ours.eos_token_ids) == (ends if isinstance(ends, list) else [ends])
    if ours.mla is None:
        assert ours.head_dim == (getattr(theirs, "head_dim", None) or ours.hidden_size // ours.num_attention_heads)
    if family.startswith("qwen"):
        kinds = ["full_attention" if ours.window_of(i) is None else "sliding_attention" for i in range(2)]
        assert theirs.layer_types == kinds


EXPORTED: dict[str, Any] = {
    "unsloth_version": "2025.3.19", "torchscript": True, "max_length": 20, "do_sample": True, "use_bfloat16": True,
    "max_sequence_length": 2048, "layer_types": ["full_attention"] * 2, "cross_attention_hidden_size": 7,
    "pruned_heads": {"0": [1]}, "prefix": "x", "num_beams": 4, "bos_token": "<s>", "use_flash_attention": True,
    "_flash_attn_2_enabled": True, "suppress_tokens": [3], "n_ctx": 512, "resid_pdrop": 0.5, "hidden_dropout": 0.1,
    "max_window_layers": 2, "save_step": 100, "pretraining_tp": 4, "attention_dropout": 0.1, "use_mrope": True,
    "initializer_range": float("nan"), "auto_map": {"AutoModel": "evil.py--Model"}, "sliding_window": 4096,
    "attention_chunk_size": 0, "per_layer_config": {}, "is_causal": True, "head_dim": 0, "attention_bias": None,
    "mlp_bias": None, "num_labels": 3, "quantization_config": {}, "rope_scaling": False, "logit_scale": 2.0,
}  # fmt: skip


@pytest.mark.parametrize("key", EXPORTED)
def test_a_key_that_says_nothing_changes_nothing(key: str) -> None:
    assert config_from_hf(tiny("llama") | {key: EXPORTED[key]}) == config_from_hf(tiny("llama"))


UNCOMPUTED: dict[str, Any] = {
    "sliding_window": 16, "attention_chunk_size": 16, "is_causal": False, "layer_types": ["sliding_attention"] * 2,
    "per_layer_config": {"0": {"hidden_size": 8}}, "kv_sharing_modes": ["reuse", None],
    "transformers_weights": "other.safetensors",
}  # fmt: skip


@pytest.mark.parametrize("key", UNCOMPUTED)
def test_what_the_reference_reads_and_this_version_does_not_is_refused_by_name(key: str) -> None:
    values = tiny("llama") | {key: UNCOMPUTED[key]}
    with pytest.raises(ConfigError, match=rf"config.json: {key} is .*Transformers reads it for llama.*--allow-unknown"):
        config_from_hf(values)
    assert config_from_hf(values, allow_unknown=True) == config_from_hf(tiny("llama"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(READ)), st.dictionaries(st.text(min_size=1, max_size=30), JSON, max_size=5))
def test_no_key_that_nobody_reads_matters(family: str, keys: dict[str, Any]) -> None:
    values = tiny(family)
    unread = {key: value for key, value in keys.items() if key not in asked(values) | READ[family] | SHARED}
    assert config_from_hf({**values, **unread}) == config_from_hf(values)


@given(st.sampled_from(sorted(READ)), st.data())
def test_any_value_of_a_key_that_is_read_is_taken_or_refused_in_words(family: str, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(READ[family] | SHARED)))
    values = tiny(family) | {key: data.draw(JSON)}
    with contextlib.suppress(ConfigError):  # any other error is a fault
        config = config_from_hf(values)
        assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
