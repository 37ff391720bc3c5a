"""The synthetic V2-Lite: a real checkpoint of the asked shape, the same numbers in both formats, sane activations."""

from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch

from deepseek.checkpoint.checkpoint import open_checkpoint
from deepseek.checkpoint.convert import convert
from deepseek.checkpoint.decode import to_float32
from deepseek.checkpoint.gguf.layout import differences_in_llama_cpp, planned_tensors
from deepseek.config import ModelConfig
from deepseek.models.auto import AutoModel
from deepseek.profiler.sizes import size_of
from synthetic_moe import shaped_like_v2_lite, write_synthetic


def small(layers: int = 3) -> ModelConfig:
    config = shaped_like_v2_lite(layers, 512)
    assert config.mla is not None
    assert config.moe is not None
    return replace(
        config,
        hidden_size=128,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=48,
        mla=replace(
            config.mla, kv_lora_rank=64, q_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32
        ),
        moe=replace(config.moe, n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=64),
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / "small.gguf"
    write_synthetic(path, small(), seed=3)
    return path


def test_opens_as_what_was_asked_for(written: Path) -> None:
    with open_checkpoint(written) as checkpoint:
        assert checkpoint.config == small()


def test_the_same_arguments_give_the_same_bytes(written: Path, tmp_path: Path) -> None:
    for seed, same in ((3, True), (4, False)):
        write_synthetic(tmp_path / "again.gguf", small(), seed=seed)
        assert ((tmp_path / "again.gguf").read_bytes() == written.read_bytes()) is same


def test_safetensors_in_bfloat16_hold_the_same_numbers(written: Path, tmp_path: Path) -> None:
    convert(written, tmp_path / "hf", dtype="BF16")
    with open_checkpoint(written) as blocks, open_checkpoint(tmp_path / "hf") as plain:
        assert blocks.config == plain.config
        for name in blocks.names():
            assert np.array_equal(to_float32(blocks.raw(name)), to_float32(plain.raw(name))), name


def test_activations_stay_sane_and_tokens_use_all_experts(written: Path) -> None:
    model = AutoModel.from_pretrained(written, dtype="float32", device="cpu")
    states: list[torch.Tensor] = []
    for layer in model.model.layers:
        layer.register_forward_hook(
            lambda module, given, made: states.append(made[0] if isinstance(made, tuple) else made)
        )
    with torch.no_grad():
        logits = model(torch.arange(64)[None]).logits
    assert all(0.5 < float(state.square().mean().sqrt()) < 3 for state in states)
    assert 0.3 < float(logits.std()) < 3
    with open_checkpoint(written) as checkpoint:
        router = to_float32(checkpoint.raw("model.layers.1.mlp.gate.weight"))
    inputs = np.random.default_rng(0).standard_normal((256, 128))
    chosen = np.argsort(inputs @ router.T, axis=1)[:, -2:]
    assert np.bincount(chosen.reshape(-1), minlength=8).min() > 20


def test_sizes_are_counted_from_the_file(written: Path) -> None:
    size = size_of(written)
    planned = planned_tensors(small())
    assert size.weights == sum(prod(tensor.shape) for tensor in planned)
    with open_checkpoint(written) as checkpoint:
        stored = {name: entry.size for name, entry in checkpoint.file.tensors.items()}  # type: ignore[attr-defined]
    experts = sum(bytes for name, bytes in stored.items() if "_exps." in name)
    rest = sum(stored.values()) - experts - stored["token_embd.weight"]
    assert size.bytes_per_token == rest + experts * 2 // 8
    assert 4.4 < size.bits_per_weight < 5.5


@pytest.mark.parametrize(("layers", "rank"), [(6, 1216), (26, None), (27, None)])
def test_llama_cpp_loads_every_depth(layers: int, rank: int | None) -> None:
    config = shaped_like_v2_lite(layers)
    assert config.mla is not None
    assert config.mla.q_lora_rank == rank
    assert not differences_in_llama_cpp(config)
