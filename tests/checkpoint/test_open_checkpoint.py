"""Folders and layouts: hub files, Transformers' fused experts, shards, FP8, prediction layers, and what is refused."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deepseek.checkpoint.checkpoint import open_checkpoint
from deepseek.checkpoint.decode import from_float32, to_float32
from deepseek.checkpoint.tensor import RawTensor
from deepseek.config import ModelConfig
from deepseek.errors import CheckpointError, ConfigError
from deepseek.families.weights import weight_shapes
from tiny_checkpoints import (
    LLAMA,
    V3,
    V3_FP8,
    equal,
    quantize,
    random_tensors,
    write_file,
    write_folder,
    write_shards,
)

INDEX = "model.safetensors.index.json"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
Tensors = dict[str, RawTensor]


def assert_holds(path: Path, config: ModelConfig, tensors: Tensors) -> None:
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.format == "safetensors"
        assert checkpoint.config == config
        assert list(checkpoint.names()) == list(weight_shapes(config))
        for name, tensor in tensors.items():
            assert checkpoint.shape(name) == tensor.shape
            assert equal(checkpoint.raw(name), tensor), name


@pytest.mark.parametrize("config", [LLAMA, V3], ids=["llama", "deepseek_v3"])
def test_single_file(config: ModelConfig, tmp_path: Path) -> None:
    tensors = random_tensors(config)
    folder = write_folder(tmp_path, config, tensors)
    assert_holds(folder, config, tensors)
    assert_holds(folder / "model.safetensors", config, tensors)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert_holds(folder, config, tensors)


def split(tensors: Tensors, parts: int) -> list[Tensors]:
    return [dict(list(tensors.items())[at::parts]) for at in range(parts)]


def test_shards(tmp_path: Path) -> None:
    tensors = quantize(random_tensors(V3_FP8), V3_FP8)
    folder = write_shards(tmp_path, V3_FP8, split(tensors, 3))
    (folder / "config.json").write_text(write_folder(tmp_path / "x", V3_FP8, {}).joinpath("config.json").read_text())
    assert_holds(folder, V3_FP8, tensors)
    assert_holds(folder / "model-00002-of-00003.safetensors", V3_FP8, tensors)


def stacked(tensors: list[RawTensor]) -> RawTensor:
    """Along a new first dimension, scales too."""
    data = np.concatenate([tensor.data for tensor in tensors])
    scales = [tensor.scale for tensor in tensors if tensor.scale is not None]
    first = tensors[0]
    scale = stacked(scales) if scales else None
    return RawTensor(first.dtype, (len(tensors), *first.shape), data, scale, first.scale_block)


def joined(gate: RawTensor, up: RawTensor) -> RawTensor:
    """Rows of gate, then rows of up."""
    scale = None if gate.scale is None or up.scale is None else joined(gate.scale, up.scale)
    shape = (gate.shape[0] + up.shape[0], *gate.shape[1:])
    return RawTensor(gate.dtype, shape, np.concatenate([gate.data, up.data]), scale, gate.scale_block)


def fused(tensors: Tensors, config: ModelConfig, layer: int) -> Tensors:
    """The layer's experts as Transformers 5 holds them."""
    assert config.moe is not None
    result = dict(tensors)
    at = f"model.layers.{layer}.mlp.experts"
    parts: dict[str, list[RawTensor]] = {}
    for kind in ("gate", "up", "down"):
        names = [f"{at}.{expert}.{kind}_proj.weight" for expert in range(config.moe.n_routed_experts)]
        parts[kind] = [result.pop(name) for name in names]
    result[f"{at}.gate_up_proj"] = stacked([joined(g, u) for g, u in zip(parts["gate"], parts["up"], strict=True)])
    result[f"{at}.down_proj"] = stacked(parts["down"])
    return result


def test_fused_experts_are_views_of_the_file(tmp_path: Path) -> None:
    tensors = random_tensors(V3)
    folder = write_folder(tmp_path, V3, fused(tensors, V3, 1))
    assert_holds(folder, V3, tensors)
    with open_checkpoint(folder) as checkpoint:
        gate = checkpoint.raw("model.layers.1.mlp.experts.2.gate_proj.weight").data
        up = checkpoint.raw("model.layers.1.mlp.experts.2.up_proj.weight").data
        assert up.ctypes.data == gate.ctypes.data + gate.nbytes
        assert not gate.flags.owndata


def test_misaligned_fused_experts_are_copied_one_by_one(tmp_path: Path) -> None:
    tensors = random_tensors(V3)
    folder = write_folder(tmp_path, V3, fused(tensors, V3, 1))
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    longer = (length + 1).to_bytes(8, "little") + content[8 : 8 + length] + b" " + content[8 + length :]
    (folder / "model.safetensors").write_bytes(longer)
    assert_holds(folder, V3, tensors)
    with open_checkpoint(folder) as checkpoint:
        gate = checkpoint.raw("model.layers.1.mlp.experts.2.gate_proj.weight").data
        assert gate.ctypes.data % 2 == 0
        assert gate.base is None


def test_fused_fp8_experts(tmp_path: Path) -> None:
    tensors = quantize(random_tensors(V3_FP8), V3_FP8)
    assert_holds(write_folder(tmp_path, V3_FP8, fused(tensors, V3_FP8, 1)), V3_FP8, tensors)


def test_fused_fp8_experts_whose_halves_share_scales_are_refused(tmp_path: Path) -> None:
    config = replace(V3, fp8_block=(24, 24))
    tensors = fused(random_tensors(config), config, 1)
    name = "model.layers.1.mlp.experts.gate_up_proj"
    scale = from_float32(np.ones((4, 3, 2), np.float32), "F32")
    tensors[name] = RawTensor("F8_E4M3", (4, 64, 40), np.zeros(4 * 64 * 40, np.uint8), scale, (24, 24))
    with pytest.raises(CheckpointError, match="gate and up share a row of scales"):
        open_checkpoint(write_folder(tmp_path, config, tensors))


def test_fp8_decodes_as_in_torch(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, V3_FP8, quantize(random_tensors(V3_FP8), V3_FP8))
    seen = 0
    with open_checkpoint(folder) as checkpoint:
        for name in checkpoint.names():
            raw = checkpoint.raw(name)
            if raw.scale is None:
                continue
            codes = torch.from_numpy(raw.data.copy()).view(torch.float8_e4m3fn).reshape(raw.shape).float()
            factors = torch.from_numpy(to_float32(raw.scale).copy())
            wide = factors.repeat_interleave(16, 0).repeat_interleave(16, 1)[: raw.shape[0], : raw.shape[1]]
            np.testing.assert_array_equal(to_float32(raw), (codes * wide).numpy())
            seen += 1
    assert seen == 2 * 5 + 3 + 3 + 4 * 3  # attention of two layers, dense, shared and routed experts


def with_prediction(config: ModelConfig) -> ModelConfig:
    return replace(config, num_nextn_predict_layers=1)


def test_prediction_layers(tmp_path: Path) -> None:
    config = with_prediction(V3)
    tensors = random_tensors(config)
    assert_holds(write_folder(tmp_path, config, tensors), config, tensors)


def test_prediction_layers_that_share_embedding_and_head(tmp_path: Path) -> None:
    config = with_prediction(V3)
    tensors = random_tensors(config)
    copies = {"model.layers.2.embed_tokens.weight": EMBEDDING, "model.layers.2.shared_head.head.weight": HEAD}
    stored = {name: tensor for name, tensor in tensors.items() if name not in copies}
    tensors |= {name: tensors[other] for name, other in copies.items()}
    assert_holds(write_folder(tmp_path, config, stored), config, tensors)


def test_prediction_layers_that_transformers_dropped(tmp_path: Path) -> None:
    tensors = random_tensors(V3)
    folder = write_folder(tmp_path, with_prediction(V3), tensors)
    assert json.loads((folder / "config.json").read_text())["num_nextn_predict_layers"] == 1
    assert_holds(folder, V3, tensors)


def test_half_a_prediction_layer_is_an_error(tmp_path: Path) -> None:
    config = with_prediction(V3)
    tensors = random_tensors(config)
    del tensors["model.layers.2.hnorm.weight"]
    with pytest.raises(CheckpointError, match=r"'model.layers.2.hnorm.weight' of shape \[40\] missing"):
        open_checkpoint(write_folder(tmp_path, config, tensors))


def test_harmless_extras(tmp_path: Path) -> None:
    config = replace(LLAMA, tie_word_embeddings=True)
    tensors = random_tensors(config)
    extra = {
        HEAD: tensors[EMBEDDING],
        "model.layers.0.self_attn.rotary_emb.inv_freq": from_float32(np.ones(2, np.float32), "F32"),
        "model.rotary_emb.inv_freq": from_float32(np.ones(2, np.float32), "F32"),
    }
    assert_holds(write_folder(tmp_path, config, {**tensors, **extra}), config, tensors)


def test_a_tied_head_that_differs_is_refused(tmp_path: Path) -> None:
    config = replace(LLAMA, tie_word_embeddings=True)
    tensors = random_tensors(config)
    folder = write_folder(tmp_path, config, {**tensors, HEAD: random_tensors(LLAMA, seed=5)[HEAD]})
    with pytest.raises(CheckpointError, match=r"'lm_head.weight' differs from .* set tie_word_embeddings to false"):
        open_checkpoint(folder)


def test_unknown_things_are_passed_over_only_when_asked(tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    name = "model.layers.0.self_attn.q_norm.weight"
    folder = write_folder(tmp_path, LLAMA, {**tensors, name: tensors["model.norm.weight"]}, is_causal=False)
    with pytest.raises(ConfigError, match="is_causal is False; Transformers reads it"):
        open_checkpoint(folder)
    write_folder(tmp_path, LLAMA, {**tensors, name: tensors["model.norm.weight"]})
    with pytest.raises(CheckpointError, match=rf"unexpected tensor '{name}' of shape \[16\]"):
        open_checkpoint(folder)
    with open_checkpoint(folder, allow_unknown=True) as checkpoint:
        assert list(checkpoint.names()) == list(tensors)


Q = "model.layers.0.self_attn.q_a_proj.weight"


def drop_scale(tensors: Tensors) -> None:
    tensors[Q] = replace(tensors[Q], scale=None)


def with_scale(shape: tuple[int, ...], value: float, dtype: str = "F32") -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[Q] = replace(tensors[Q], scale=from_float32(np.full(shape, value, np.float32), dtype))

    return change


def scale_of_bf16(tensors: Tensors) -> None:
    tensors[Q] = replace(random_tensors(V3)[Q], scale=tensors[Q].scale)


def whole_numbers(tensors: Tensors) -> None:
    tensors[Q] = replace(tensors[Q], dtype="I8", scale=None)


def lonely_scale(tensors: Tensors) -> None:
    tensors["model.layers.0.nothing.weight_scale_inv"] = from_float32(np.ones((1, 1), np.float32), "F32")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_scale, "q_a_proj.weight': its scales '.*q_a_proj.weight_scale_inv' are missing"),
        (with_scale((1, 2), 1), r"are F32 \[1, 2\], but blocks of \[16, 16\] ask for F32 \[1, 3\]"),
        (with_scale((1, 3), 1, "BF16"), r"are BF16 \[1, 3\], but blocks"),
        (scale_of_bf16, "belong to a weight of type BF16, not FP8"),
        (whole_numbers, "is of type I8; weights can be F32, F16, BF16, F8_E4M3"),
        (lonely_scale, "unexpected tensor 'model.layers.0.nothing.weight_scale_inv'"),
    ],
)
def test_fp8_damage_at_opening(change: Callable[[Tensors], None], message: str, tmp_path: Path) -> None:
    tensors = quantize(random_tensors(V3_FP8), V3_FP8)
    change(tensors)
    with pytest.raises(CheckpointError, match=message) as error:
        open_checkpoint(write_folder(tmp_path, V3_FP8, tensors))
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5])
def test_fp8_scale_values_are_checked_when_read(value: float, tmp_path: Path) -> None:
    tensors = quantize(random_tensors(V3_FP8), V3_FP8)
    with_scale((1, 3), value)(tensors)
    message = r"model.safetensors: '.*q_a_proj.weight_scale_inv': the FP8 scale at"
    with (
        open_checkpoint(write_folder(tmp_path, V3_FP8, tensors)) as checkpoint,
        pytest.raises(CheckpointError, match=message),
    ):
        checkpoint.raw(Q)


def test_fp8_that_the_config_does_not_explain(tmp_path: Path) -> None:
    tensors = quantize(random_tensors(V3_FP8), V3_FP8)
    with pytest.raises(CheckpointError, match="needs quantization_config with quant_method 'fp8'"):
        open_checkpoint(write_folder(tmp_path, V3, tensors))


def test_missing_and_misshapen(tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    without = {name: tensor for name, tensor in tensors.items() if "layers.1.mlp" not in name}
    with pytest.raises(CheckpointError, match=r"'model.layers.1.mlp.gate_proj.weight' .* and 2 others missing"):
        open_checkpoint(write_folder(tmp_path, LLAMA, without))
    wrong = {**tensors, "model.norm.weight": from_float32(np.ones((4, 4), np.float32), "F32")}
    with pytest.raises(CheckpointError, match=r"'model.norm.weight' has shape \[4, 4\], .* asks for \[16\]"):
        open_checkpoint(write_folder(tmp_path, LLAMA, wrong))


def test_fused_and_single_experts_at_once(tmp_path: Path) -> None:
    tensors = random_tensors(V3)
    both = {**fused(tensors, V3, 1), **tensors}
    with pytest.raises(CheckpointError, match="is stored twice, as "):
        open_checkpoint(write_folder(tmp_path, V3, both))
    wrong = fused(tensors, V3, 1)
    name = "model.layers.1.mlp.experts.down_proj"
    wrong[name] = replace(wrong[name], shape=(4, 32, 40))
    with pytest.raises(CheckpointError, match=r"experts.down_proj' has shape \[4, 32, 40\], .* \[4, 40, 32\]"):
        open_checkpoint(write_folder(tmp_path, V3, wrong))


def edit_index(folder: Path, **changes: object) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"].update(changes)
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "a/b.safetensors", "..", "a\\b.safetensors", 7])
def test_an_index_that_leaves_the_folder(name: object, tmp_path: Path) -> None:
    folder = write_shards(tmp_path, LLAMA, split(random_tensors(LLAMA), 2))
    edit_index(folder, **{HEAD: name})
    with pytest.raises(CheckpointError, match=r"'lm_head.weight' lies in .* not the plain name of a .safetensors file"):
        open_checkpoint(folder)


def test_shards_and_index_that_disagree(tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    folder = write_shards(tmp_path, LLAMA, split(tensors, 2))
    second = "model-00002-of-00002.safetensors"
    good = (folder / INDEX).read_text()
    other = random_tensors(LLAMA, seed=5)
    write_file(folder / "copy.safetensors", {EMBEDDING: other[EMBEDDING]})
    index = json.loads(good)
    index["weight_map"]["model.extra"] = "copy.safetensors"
    del index["weight_map"][EMBEDDING]
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=rf"'{EMBEDDING}' is also in .*, with other values; remove one"):
        open_checkpoint(folder)
    (folder / INDEX).write_text(good)
    (folder / second).unlink()
    with pytest.raises(CheckpointError, match=f"{second}: file is missing"):
        open_checkpoint(folder)
    (folder / INDEX).write_text('{"weight_map": {"a": "b.safetensors", "a": "b.safetensors"}}')
    with pytest.raises(CheckpointError, match="'a' occurs twice"):
        open_checkpoint(folder)
    (folder / INDEX).write_text('{"weight_map": []}')
    with pytest.raises(CheckpointError, match="weight_map must map"):
        open_checkpoint(folder)


def test_symbolic_links_work(tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    home = tmp_path / "models--org--name"
    blobs = write_folder(home / "blobs", LLAMA, tensors)
    snapshot = home / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (blobs / name).rename(blobs / f"{name}-hash")
        (snapshot / name).symlink_to(f"../../blobs/{name}-hash")
    assert_holds(snapshot, LLAMA, tensors)
    (tmp_path / "alias").symlink_to(snapshot)
    assert_holds(tmp_path / "alias", LLAMA, tensors)
    outside = tmp_path / "outside.safetensors"
    write_file(outside, tensors)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(outside)
    assert_holds(snapshot, LLAMA, tensors)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to("model.safetensors")
    with pytest.raises(CheckpointError, match="file is missing"):
        open_checkpoint(snapshot)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "weights.pkl"])
def test_pickles_are_never_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    torch.save({"a": torch.zeros(1)}, tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(
            CheckpointError, match=f"{name}: pickle files can run code .* fetch the model as safetensors"
        ):
            open_checkpoint(path)


def test_folders_that_hold_nothing_to_open(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint here; expected"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no such file or folder"):
        open_checkpoint(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        open_checkpoint(tmp_path / "notes.txt")
    write_folder(tmp_path, LLAMA, {})
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config.json: file is missing"):
        open_checkpoint(tmp_path)
    write_folder(tmp_path, LLAMA, {})
    (tmp_path / "model.safetensors").rename(tmp_path / "a.safetensors")
    shutil.copy(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"2 .safetensors files and no model.safetensors.index.json"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged JSON"),
        ("[]", "must be a JSON object"),
        ('{"model_type": "llama", "rms_norm_eps": NaN}', "rms_norm_eps must be a finite number"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested 40 deep"),
        ("{" + " " * (5 << 20) + "}", "over 4 MiB"),
        ('{"model_type": "gpt5"}', "'gpt5' is not among"),
    ],
)
def test_a_bad_config(content: str, message: str, tmp_path: Path) -> None:
    write_folder(tmp_path, LLAMA, random_tensors(LLAMA))
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        open_checkpoint(tmp_path)
    assert "config.json" in str(error.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"{", b"\xef\xbb\xbf{"),  # a byte order mark, as editors on Windows write it
        (b"{", b'{"initializer_range": Infinity, '),  # Python's json writes these
        (b"{", b'{"embd_pdrop": NaN, "layers": [-Infinity], '),
        (b"{", b'{"use_cache": false, "use_cache": true, '),
        (b"{", b'{"vocab_size": 1, '),  # of a name that occurs twice the last counts
        (b'"num_hidden_layers": 2', b'"num_hidden_layers": 2.0'),
    ],
)
def test_a_config_as_python_and_editors_write_it(before: bytes, after: bytes, tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    config = write_folder(tmp_path, LLAMA, tensors) / "config.json"
    written = config.read_bytes()
    assert before in written
    config.write_bytes(written.replace(before, after, 1))
    assert_holds(tmp_path, LLAMA, tensors)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux shows them")
def test_nothing_stays_open_after_an_error(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, LLAMA, split(random_tensors(LLAMA), 4)[:3])
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CheckpointError, match="missing"):
        open_checkpoint(folder)
    assert len(os.listdir("/proc/self/fd")) == before
