"""Published configurations read, counted, and written back without loss; foreign and contradictory keys refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from deepseek.config import ModelConfig, RopeConfig
from deepseek.errors import ConfigError
from deepseek.families import config_from_gguf, config_from_hf, config_to_gguf, config_to_hf, family_of
from deepseek.families.llama import llama3_divisors
from deepseek.families.sizes import cache_elements_per_token, model_size
from deepseek.families.weights import weight_shapes
from real_key_sets import tiny

CONFIGS = sorted(Path(__file__).parent.glob("configs/*.json"))


def read(name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((Path(__file__).parent / "configs" / f"{name}.json").read_text())
    return values


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_published_config_survives_writing_and_reading(path: Path) -> None:
    config = config_from_hf(json.loads(path.read_text()), where=path.name)
    assert config.family == json.loads(path.read_text())["model_type"]
    assert config_from_hf(config_to_hf(config)) == dataclasses.replace(config, fp8_block=None)
    assert ModelConfig.from_dict(config.to_dict()) == config
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


# What DeepSeek publishes, rounded as published: parameters in all, parameters active a token (in billions).
# Two-digit figures are truncated by their authors: V2-Lite's "2.4B" is 2.451B, V3's "37B" is 36.6B ("36.7B" in the
# release notes) without the embedding table, which is looked up and not multiplied.
@pytest.mark.parametrize(
    ("name", "total", "active", "tolerance"),
    [
        ("deepseek-v2-lite", 15.7, 2.45, 0.01),
        ("deepseek-v2", 236, 21, 0.01),
        ("deepseek-v3", 671, 36.7, 0.01),
        ("deepseek-moe-16b", 16.4, 2.6, 0.01),
        ("r1-distill-llama-8b", 8.03, 7.50, 0.001),
        ("smollm2-135m", 0.1345, 0.1345, 0.001),
    ],
)
def test_parameters_are_those_published(name: str, total: float, active: float, tolerance: float) -> None:
    size = model_size(config_from_hf(read(name)))
    assert size.total / 1e9 == pytest.approx(total, rel=tolerance)
    assert size.active / 1e9 == pytest.approx(active, rel=tolerance)


def test_sizes_add_up() -> None:
    config = config_from_hf(read("deepseek-v3"))
    size = model_size(config)
    shapes = weight_shapes(config)
    everything = sum(_product(shape) for shape in shapes.values())
    assert size.total + size.mtp == everything
    assert size.mtp / 1e9 == pytest.approx(
        11.6 + 2 * 129280 * 7168 / 1e9, rel=0.01
    )  # its embedding and head are copies
    assert cache_elements_per_token(config) == 61 * (512 + 64)
    assert [layer.name for layer in size.layers[:2]] == ["embedding", "layer 0"]
    assert size.layers[1].routed_experts == 0  # the first three layers are dense
    assert size.layers[4].routed_experts == 256 * 3 * 7168 * 2048


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _gguf_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The few tensor names that config_from_gguf looks at."""
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (config.vocab_size, config.hidden_size)}
    if not config.tie_word_embeddings:
        shapes["output.weight"] = shapes["token_embd.weight"]
    if config.attention_bias and config.mla is None:
        shapes["blk.0.attn_q.bias"] = (config.num_attention_heads * config.head_dim,)
    return shapes


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_survives_gguf(path: Path) -> None:
    values = json.loads(path.read_text())
    config = config_from_hf(values)
    metadata = config_to_gguf(config)
    metadata["tokenizer.ggml.bos_token_id"] = config.bos_token_id
    metadata["tokenizer.ggml.eos_token_id"] = config.eos_token_ids[0]
    metadata["tokenizer.ggml.padding_token_id"] = config.pad_token_id
    divisors = llama3_divisors(config.rope, config.head_dim) if config.rope.scaling == "llama3" else None
    back = config_from_gguf(metadata, _gguf_shapes(config), rope_divisors=divisors)
    # sliding-window settings that are off have no trace in GGUF
    assert back == dataclasses.replace(config, fp8_block=None)
    assert family_of(back).gguf_architecture == metadata["general.architecture"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("smollm2-135m", {"model_type": "mamba"}, "model_type 'mamba'.*llama"),
        ("smollm2-135m", {"model_type": None}, "lacks the key 'model_type'"),
        ("smollm2-135m", {"hidden_act": "gelu"}, "hidden_act is 'gelu'.*silu"),
        ("smollm2-135m", {"hidden_size": "576"}, "hidden_size must be a whole number"),
        ("smollm2-135m", {"hidden_size": True}, "hidden_size must be a whole number"),
        ("smollm2-135m", {"hidden_size": 577}, "multiple of num_attention_heads"),
        ("smollm2-135m", {"num_key_value_heads": 2}, "multiple of"),
        ("smollm2-135m", {"num_hidden_layers": 0}, "num_hidden_layers must be"),
        ("smollm2-135m", {"num_hidden_layers": 1 << 40}, "num_hidden_layers is 1,099,511,627,776; the limit is 10,000"),
        ("smollm2-135m", {"num_hidden_layers": 1e300, "layer_types": []}, "the limit is 10,000"),
        ("r1-distill-qwen-1.5b", {"num_hidden_layers": 1 << 40}, "the limit is 10,000"),
        ("deepseek-v3", {"n_routed_experts": 1 << 30}, "n_routed_experts is 1,073,741,824 in each layer"),
        ("smollm2-135m", {"rms_norm_eps": float("nan")}, "rms_norm_eps must be a finite number"),
        ("smollm2-135m", {"rope_scaling": {"rope_type": "longrope"}}, "rope_type 'longrope'"),
        ("smollm2-135m", {"rope_scaling": {"rope_type": "linear"}}, "lacks the key 'factor'"),
        ("smollm2-135m", {"quantization_config": {"quant_method": "awq"}}, "quant_method is 'awq'.*fp8"),
        ("deepseek-v2-lite", {"num_experts_per_tok": 65}, "num_experts_per_tok"),
        ("deepseek-v2-lite", {"norm_topk_prob": True}, "norm_topk_prob"),
        ("deepseek-v2-lite", {"scoring_func": "sigmoid"}, "scoring_func"),
        ("deepseek-v2", {"n_group": 7}, "multiple of n_group"),
        ("deepseek-v3", {"topk_group": 9}, "topk_group"),
        ("deepseek-v3", {"num_local_experts": 8}, "num_local_experts is 8.*256"),
        ("deepseek-v3", {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128]}}, "two whole"),
        ("deepseek-v3.2", {"q_lora_rank": None}, "q_lora_rank"),
        ("r1-distill-qwen-1.5b", {"layer_types": ["sliding_attention"] * 28}, "layer_types"),
    ],
)
def test_contradictions_name_their_field(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_hf(read(name) | change)


def test_our_own_config_refuses_unknown_and_missing_keys() -> None:
    values = config_from_hf(read("deepseek-v3")).to_dict()
    with pytest.raises(ConfigError, match=r"unknown key moe\.n_experts"):
        ModelConfig.from_dict(values | {"moe": values["moe"] | {"n_experts": 8}})
    with pytest.raises(ConfigError, match="missing key hidden_size"):
        ModelConfig.from_dict({key: value for key, value in values.items() if key != "hidden_size"})


def test_transformers_spelling_of_rope_is_read_too() -> None:
    old = config_from_hf(read("deepseek-v3"))
    values = read("deepseek-v3")
    scaling = values.pop("rope_scaling")
    values["rope_parameters"] = scaling | {"rope_theta": values.pop("rope_theta"), "rope_type": scaling.pop("type")}
    assert config_from_hf(values) == old


def test_yarn_that_gguf_cannot_say_is_refused() -> None:
    config = config_from_hf(read("deepseek-v3"))
    odd = dataclasses.replace(config, rope=dataclasses.replace(config.rope, mscale=0.5))
    with pytest.raises(ConfigError, match=r"mscale.*safetensors"):
        config_to_gguf(odd)


def test_llama3_divisors_are_recognised_only_when_they_are_llama3s() -> None:
    rope = RopeConfig(
        theta=5e5, scaling="llama3", factor=8.0, original_max_position_embeddings=8192, high_freq_factor=4.0
    )
    divisors = llama3_divisors(rope, 128)
    assert divisors[0] == 1.0
    assert divisors[-1] == 8.0
    config = config_from_hf(read("r1-distill-llama-8b"))
    metadata = config_to_gguf(config)
    spoiled = (*divisors[:-1], 7.5)
    with pytest.raises(ConfigError, match="rope_freqs"):
        config_from_gguf(metadata, _gguf_shapes(config), rope_divisors=spoiled)


def test_null_is_off_for_flags_that_transformers_only_tests() -> None:
    """Their default is true, and `if None` is false."""
    values = tiny("deepseek_v3", norm_topk_prob=None, rope_interleave=None)
    config = config_from_hf(values)
    assert config.moe is not None
    assert not config.moe.norm_topk_prob
    assert not config.rope.interleaved
    absent = config_from_hf(tiny("deepseek_v3"))
    assert absent.moe is not None
    assert absent.moe.norm_topk_prob
    assert absent.rope.interleaved
