"""What we save, Transformers loads, and what it saves, we load: with equal logits. Damaged weights are named."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from deepseek import AutoModel
from deepseek.checkpoint.tensor import RawTensor
from deepseek.errors import CheckpointError, ConfigError
from deepseek.families.weights import weight_shapes
from deepseek.models.decoder import Model
from deepseek.models.loading import fill
from deepseek.models.weights import canonical_tensors
from model_cases import CASES
from model_reference import paired, randomise, relative_difference

FAMILIES = ["llama", "llama-tied-no-bias", "qwen2-window", "qwen3", "v2-lite", "v2-groups", "v3", "v32"]
IDS = torch.arange(2 * 8).view(2, 8)


def random_model(name: str, **changes: object) -> Model:
    model = Model(replace(CASES[name], **changes)).eval()
    randomise(model, 6)
    return model


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("max_shard_bytes", [None, 20_000])
@torch.no_grad()
def test_transformers_loads_what_we_save(name: str, max_shard_bytes: int | None, tmp_path: Path) -> None:
    ours = random_model(name)
    ours.save_pretrained(tmp_path, max_shard_bytes=max_shard_bytes)
    assert len(list(tmp_path.glob("*.safetensors"))) > (1 if max_shard_bytes else 0)
    reference, info = AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert relative_difference(ours(IDS).logits, reference(IDS).logits) <= 1e-4


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("fused", [False, True])
@torch.no_grad()
def test_we_load_what_transformers_saves(name: str, fused: bool, tmp_path: Path) -> None:
    _, reference = paired(CASES[name], 3)
    reference.save_pretrained(tmp_path, max_shard_size="20KB", save_original_format=not fused)
    assert (tmp_path / "model.safetensors.index.json").exists()
    ours = AutoModel.from_pretrained(tmp_path, dtype="float32", device="cpu")
    assert ours.config == CASES[name]
    assert relative_difference(ours(IDS).logits, reference(IDS).logits) <= 1e-4


@pytest.mark.parametrize("name", ["v1", "v3", "v32", "llama-tied-no-bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_our_own_round_trip_is_exact(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    ours = random_model(name, num_nextn_predict_layers=2 if name == "v3" else 0).to(dtype)
    ours.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path, dtype=dtype, device="cpu")
    assert again.config == ours.config
    for (weight, old), new in zip(ours.state_dict().items(), again.state_dict().values(), strict=True):
        assert old.dtype == new.dtype
        assert torch.equal(old, new), weight
    assert torch.equal(ours(IDS).logits, again(IDS).logits)
    assert not again.training


def test_weights_are_loaded_to_other_types(tmp_path: Path) -> None:
    ours = random_model("v3")
    ours.save_pretrained(tmp_path)
    for dtype in ("bfloat16", "float16"):
        rounded = AutoModel.from_pretrained(tmp_path, dtype=dtype, device="cpu")
        expected = ours.model.embed_tokens.weight.to(getattr(torch, dtype))
        assert torch.equal(rounded.model.embed_tokens.weight, expected)
        gate = rounded.model.layers[1].mlp.gate
        assert torch.equal(gate.e_score_correction_bias, ours.model.layers[1].mlp.gate.e_score_correction_bias)
    rounded.save_pretrained(tmp_path / "half")
    widened = AutoModel.from_pretrained(tmp_path / "half", dtype="float32", device="cpu")
    assert torch.equal(widened.model.embed_tokens.weight, expected.float())


def test_loaded_weights_may_be_trained_and_the_files_stay(tmp_path: Path) -> None:
    ours = random_model("llama")
    ours.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    loaded = AutoModel.from_pretrained(tmp_path, dtype="float32", device="cpu")
    with torch.no_grad():
        for weight in loaded.parameters():
            weight.add_(1)
    loaded(IDS).logits.sum().backward()
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_names_are_those_of_the_families() -> None:
    model = random_model("v3", num_nextn_predict_layers=1)
    tensors = canonical_tensors(model)
    shapes = weight_shapes(model.config)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == shapes
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    owned = sum(weight.numel() for weight in [*model.parameters(), *model.buffers()])
    copies = 2 * model.model.embed_tokens.weight.numel()  # the prediction layer's embedding and head
    assert sum(tensor.numel() for tensor in tensors.values()) == owned + copies


def test_fp8_blocks_are_widened() -> None:
    """127 rows by 70 inputs in blocks of 64 x 32: both edges are partial."""
    codes = torch.randn(127, 70).to(torch.float8_e4m3fn)
    scales = torch.rand(2, 3) + 0.5
    raw = RawTensor(
        dtype="F8_E4M3",
        shape=(127, 70),
        data=codes.flatten().view(torch.uint8).numpy(),
        scale=RawTensor(dtype="F32", shape=(2, 3), data=scales.flatten().view(torch.uint8).numpy()),
        scale_block=(64, 32),
    )
    target = torch.empty(127, 70)
    fill(target, raw)
    spread = scales.repeat_interleave(64, 0)[:127].repeat_interleave(32, 1)[:, :70]
    assert torch.equal(target, codes.float() * spread)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(bad: float, tmp_path: Path) -> None:
    ours = random_model("v3")
    with torch.no_grad():
        ours.model.layers[1].mlp.experts.down_proj[2, 3, 4] = bad
    ours.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.experts\.2\.down_proj\.weight.*not finite"):
        AutoModel.from_pretrained(tmp_path, dtype="float32", device="cpu")


def test_a_prediction_layer_with_its_own_head_is_refused(tmp_path: Path) -> None:
    import safetensors.torch

    random_model("v3", num_nextn_predict_layers=1).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors["model.layers.3.shared_head.head.weight"] += 1
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layers\.3\.shared_head\.head\.weight' differs from 'lm_head\.weight'"):
        AutoModel.from_pretrained(tmp_path, device="cpu")


def test_keys_that_are_not_computed_are_refused_unless_allowed(tmp_path: Path) -> None:
    random_model("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "logit_softcap": 30}))
    AutoModel.from_pretrained(tmp_path, device="cpu")  # Llama's code does not read it
    (tmp_path / "config.json").write_text(json.dumps({**config, "is_causal": False}))
    with pytest.raises(ConfigError, match="is_causal"):
        AutoModel.from_pretrained(tmp_path, device="cpu")
    AutoModel.from_pretrained(tmp_path, device="cpu", allow_unknown_keys=True)


def test_an_unsaveable_type_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"type torch\.float64"):
        random_model("llama").double().save_pretrained(tmp_path)


def test_progress_is_told(tmp_path: Path) -> None:
    said: list[tuple[str, int, int | None, str]] = []
    model = random_model("llama")
    model.save_pretrained(tmp_path, report=lambda *told: said.append(told))
    AutoModel.from_pretrained(tmp_path, device="cpu", report=lambda *told: said.append(told))
    assert {label for label, *_ in said} >= {"loading weights"}
    label, done, total, unit = said[-1]
    assert (label, done, unit) == ("loading weights", total, "tensors")


def test_transformers_names_of_type_and_device() -> None:
    model = AutoModel.from_pretrained("smollm2", torch_dtype="bf16", device_map="cpu")
    assert next(model.parameters()).dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="two names of one setting"):
        AutoModel.from_pretrained("smollm2", dtype="float32", torch_dtype=torch.float16)
