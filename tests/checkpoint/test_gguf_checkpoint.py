"""GGUF files behind the interface of all checkpoints: names, order of rows, experts, and files that contradict."""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepseek.checkpoint.checkpoint import open_checkpoint
from deepseek.checkpoint.convert import convert
from deepseek.checkpoint.decode import to_float32
from deepseek.checkpoint.gguf.checkpoint import GgufCheckpoint
from deepseek.checkpoint.gguf.file import GgufFile
from deepseek.checkpoint.gguf.layout import storable_config
from deepseek.checkpoint.gguf.quantize import quantize
from deepseek.checkpoint.gguf.rows import halves_from_pairs, join_kv_b, pairs_from_halves, split_kv_b
from deepseek.checkpoint.gguf.writer import TensorToWrite, write_gguf
from deepseek.checkpoint.tensor import RawTensor
from deepseek.errors import CheckpointError, ConfigError
from gguf_models import CONFIGS, random_weights, write_folder

Edit = Callable[[dict[str, Any], dict[str, TensorToWrite]], None]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One F32 GGUF file of every tiny model."""
    folder = tmp_path_factory.mktemp("gguf")
    paths = {}
    for name, config in CONFIGS.items():
        paths[name] = folder / f"{name}.gguf"
        convert(write_folder(folder / name, config), paths[name])
    return paths


@pytest.mark.parametrize("name", CONFIGS)
def test_configuration_and_weights_come_back(name: str, files: dict[str, Path]) -> None:
    config = storable_config(CONFIGS[name])
    if config.rope.attention_factor is not None:  # stored relative to another number, as float32
        config = replace(config, rope=replace(config.rope, attention_factor=pytest.approx(1.2)))
    expected = random_weights(CONFIGS[name])
    with open_checkpoint(files[name]) as checkpoint:
        assert checkpoint.format == "gguf"
        assert checkpoint.config == config
        assert set(checkpoint.names()) <= expected.keys()
        for weight in checkpoint.names():
            raw = checkpoint.raw(weight)
            assert raw.shape == checkpoint.shape(weight) == expected[weight].shape
            assert raw.dtype == "F32"
            assert raw.data.tobytes() == expected[weight].data.tobytes(), weight


def test_experts_and_matrices_are_views(files: dict[str, Path]) -> None:
    with GgufCheckpoint(files["deepseek_v3"]) as checkpoint:
        stack = checkpoint.file.data("blk.1.ffn_up_exps.weight")
        third = checkpoint.raw("model.layers.1.mlp.experts.3.up_proj.weight").data
        assert np.shares_memory(stack, third)
        assert third.tobytes() == stack.reshape(8, -1)[3].tobytes()
        assert not checkpoint.raw("model.embed_tokens.weight").data.flags.owndata


@pytest.mark.parametrize("dtype", ["F32", "BF16", "Q8_0", "Q4_0"])
def test_rows_move_whole(dtype: str) -> None:
    values = np.random.default_rng(0).standard_normal((4 * 16, 64)).astype("f4")
    tensor = RawTensor(dtype, values.shape, quantize(dtype, values))
    stored = pairs_from_halves(tensor, 4)
    # llama.cpp's converter: (heads, 2, d/2) becomes (heads, d/2, 2).
    expected = to_float32(tensor).reshape(4, 2, 8, 64).swapaxes(1, 2).reshape(64, 64)
    assert np.array_equal(to_float32(stored), expected)
    assert halves_from_pairs(stored, 4).data.tobytes() == tensor.data.tobytes()


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_kv_b_splits_and_joins_exactly(dtype: str) -> None:
    mla = CONFIGS["deepseek_v3"].mla
    assert mla is not None
    values = np.random.default_rng(0).standard_normal((4 * 64, 32)).astype("f4")
    whole = RawTensor(dtype, values.shape, quantize(dtype, values))
    k_b, v_b = split_kv_b(whole, 4, mla)
    assert (k_b.dtype, k_b.shape, v_b.shape) == (dtype, (4, 32, 32), (4, 32, 32))
    assert np.array_equal(to_float32(k_b)[1], to_float32(whole)[64:96].T)
    assert join_kv_b(k_b, v_b).data.tobytes() == whole.data.tobytes()


def rewritten(source: Path, target: Path, edit: Edit) -> Path:
    """A copy with metadata and tensors changed."""
    with GgufFile(source) as file:
        metadata = dict(file.metadata)
        tensors = {
            name: TensorToWrite(name, t.dtype, t.shape, lambda name=name: [file.data(name)])
            for name, t in file.tensors.items()
        }
        edit(metadata, tensors)
        write_gguf(target, metadata, list(tensors.values()))
    return target


def put(tensors: dict[str, TensorToWrite], name: str, dtype: str, shape: tuple[int, ...], data: Any) -> None:
    flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    tensors[name] = TensorToWrite(name, dtype, shape, lambda: [flat])


def test_older_files_keep_kv_b_whole(files: dict[str, Path], tmp_path: Path) -> None:
    expected = random_weights(CONFIGS["deepseek_v3"])

    def edit(metadata: dict[str, Any], tensors: dict[str, TensorToWrite]) -> None:
        for layer in range(2):
            del tensors[f"blk.{layer}.attn_k_b.weight"], tensors[f"blk.{layer}.attn_v_b.weight"]
            raw = expected[f"model.layers.{layer}.self_attn.kv_b_proj.weight"]
            put(tensors, f"blk.{layer}.attn_kv_b.weight", "F32", raw.shape, raw.data)
        for old, value in (("key_length", 48), ("value_length", 32)):
            metadata[f"deepseek2.attention.{old}"] = value
            del metadata[f"deepseek2.attention.{old}_mla"]

    with GgufCheckpoint(rewritten(files["deepseek_v3"], tmp_path / "old.gguf", edit)) as checkpoint:
        assert checkpoint.config == CONFIGS["deepseek_v3"]
        for weight in checkpoint.names():
            assert checkpoint.raw(weight).data.tobytes() == expected[weight].data.tobytes()


def test_kv_b_beside_its_halves_is_passed_over(files: dict[str, Path], tmp_path: Path) -> None:
    path = rewritten(
        files["deepseek_v3"],
        tmp_path / "both.gguf",
        lambda _, tensors: put(tensors, "blk.0.attn_kv_b.weight", "F32", (256, 32), np.zeros((256, 32), "f4")),
    )
    with GgufCheckpoint(path) as checkpoint:
        assert to_float32(checkpoint.raw("model.layers.0.self_attn.kv_b_proj.weight")).any()


def test_shared_tables_of_prediction_layers_may_be_left_out(files: dict[str, Path], tmp_path: Path) -> None:
    config = replace(CONFIGS["deepseek_v32"], num_nextn_predict_layers=1)
    full = tmp_path / "full.gguf"
    convert(write_folder(tmp_path / "v32", config), full)

    def edit(_: dict[str, Any], tensors: dict[str, TensorToWrite]) -> None:
        del tensors["blk.2.nextn.embed_tokens.weight"], tensors["blk.2.nextn.shared_head_head.weight"]

    with GgufCheckpoint(rewritten(full, tmp_path / "lean.gguf", edit)) as checkpoint:
        assert checkpoint.config == config
        head = checkpoint.raw("model.layers.2.shared_head.head.weight").data
        assert head.tobytes() == checkpoint.raw("lm_head.weight").data.tobytes()


def drop(*names: str) -> Edit:
    def edit(metadata: dict[str, Any], tensors: dict[str, TensorToWrite]) -> None:
        for name in names:
            del (tensors if name in tensors else metadata)[name]

    return edit


def setting(**values: Any) -> Edit:
    return lambda metadata, _: metadata.update({f"deepseek2.{key.replace('__', '.')}": v for key, v in values.items()})


def tensor(name: str, shape: tuple[int, ...], dtype: str = "F32", fill: int = 0) -> Edit:
    def edit(_: dict[str, Any], tensors: dict[str, TensorToWrite]) -> None:
        from deepseek.checkpoint.dtypes import byte_size

        put(tensors, name, dtype, shape, np.full(byte_size(dtype, shape), fill, np.uint8))

    return edit


CONTRADICTIONS: dict[str, tuple[Edit, str]] = {
    "architecture missing": (drop("general.architecture"), "lacks the key 'general.architecture'"),
    "architecture": (lambda m, _: m.update({"general.architecture": "gpt2"}), "'gpt2' is not among those"),
    "architecture a number": (lambda m, _: m.update({"general.architecture": 3}), "must be a string, not 3"),
    "key missing": (drop("deepseek2.embedding_length"), "lacks the key 'deepseek2.embedding_length'"),
    "key not computed": (setting(attention__causal=False), "deepseek2.attention.causal is False; llama.cpp reads it"),
    "layers": (setting(block_count=1 << 31), "block_count is 2,147,483,648, but there are"),
    "experts": (setting(expert_count=1 << 30), "expert_count is 1,073,741,824 in 2 layers"),
    "experts off by some": (
        setting(expert_count=16),
        r"ffn_gate_inp.weight' has shape \[8, 64\]",
    ),
    "an array for a number": (setting(block_count=np.arange(9, dtype=np.int32)), "must be a whole number"),
    "an array for a choice": (setting(expert_gating_func=np.arange(9, dtype=np.int32)), "expert_gating_func"),
    "a text for a number": (setting(rope__freq_base="x"), "must be a finite number"),
    "not a number": (setting(rope__freq_base=float("nan")), "must be a finite number"),
    "zero heads": (setting(attention__head_count=0), "num_attention_heads must be a whole number above 0"),
    "token id a text": (
        lambda m, _: m.update({"tokenizer.ggml.bos_token_id": "x"}),
        "bos_token_id must be",
    ),
    "embedding missing": (drop("token_embd.weight"), "token_embd.weight is missing"),
    "tensor missing": (drop("blk.1.ffn_up_exps.weight"), "tensor 'blk.1.ffn_up_exps.weight' is missing"),
    "half of kv_b missing": (
        drop("blk.0.attn_k_b.weight"),
        "'blk.0.attn_k_b.weight' is missing",
    ),
    "tensor unknown": (tensor("blk.0.surprise", (4,)), "unexpected tensor 'blk.0.surprise'"),
    "shape": (tensor("output_norm.weight", (63,)), r"'output_norm.weight' has shape \[63\], but .* asks for \[64\]"),
    "shape of kv_b": (tensor("blk.0.attn_k_b.weight", (4, 32, 64)), r"'blk.0.attn_k_b.weight' has shape \[4, 32, 64\]"),
    "transposed": (
        tensor("blk.0.ffn_up.weight", (64, 96)),
        r"has shape \[64, 96\], but .* asks for \[96, 64\]",
    ),
    "rope divisors": (tensor("rope_freqs.weight", (9, 9)), "'rope_freqs.weight' has the shape"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions(case: str, files: dict[str, Path], tmp_path: Path) -> None:
    edit, message = CONTRADICTIONS[case]
    path = rewritten(files["deepseek_v3"], tmp_path / "bad.gguf", edit)
    with pytest.raises((CheckpointError, ConfigError), match=message) as raised:
        GgufCheckpoint(path)
    assert "bad.gguf" in str(raised.value)


def test_unknown_things_can_be_allowed(files: dict[str, Path], tmp_path: Path) -> None:
    def edit(metadata: dict[str, Any], tensors: dict[str, TensorToWrite]) -> None:
        setting(attention__temperature_scale=0.1)(metadata, tensors)
        tensor("blk.0.surprise", (4,))(metadata, tensors)

    path = rewritten(files["deepseek_v3"], tmp_path / "new.gguf", edit)
    with open_checkpoint(path, allow_unknown=True) as checkpoint:
        assert checkpoint.config == CONFIGS["deepseek_v3"]


def test_a_hostile_head_size_for_llama3(files: dict[str, Path], tmp_path: Path) -> None:
    """As many rope divisors as the head size says would take for ever to compute."""

    def edit(metadata: dict[str, Any], _: Any) -> None:
        for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
            metadata[f"llama.{key}"] = 1 << 62

    with pytest.raises(ConfigError, match=r"rope_freqs.weight does not hold Llama 3's scaling"):
        GgufCheckpoint(rewritten(files["llama-tied-llama3"], tmp_path / "bad.gguf", edit))


def test_a_nan_scale_names_tensor_and_block(tmp_path: Path) -> None:
    path = tmp_path / "q8.gguf"
    convert(write_folder(tmp_path / "v3", CONFIGS["deepseek_v3"]), path, dtype="Q8_0")
    with GgufFile(path) as file:
        place = file.tensors["blk.1.ffn_up_exps.weight"].offset + 34 * (128 * 2 + 5)  # a block of expert 2
    content = bytearray(path.read_bytes())
    content[place : place + 2] = np.array([np.nan], np.float16).tobytes()
    path.write_bytes(content)
    with GgufCheckpoint(path) as checkpoint:
        checkpoint.raw("model.layers.1.mlp.experts.1.up_proj.weight")
        message = r"q8.gguf: tensor 'blk.1.ffn_up_exps.weight': block 5 of 128 has a scale that is NaN"
        with pytest.raises(CheckpointError, match=message):
            checkpoint.raw("model.layers.1.mlp.experts.2.up_proj.weight")
    with pytest.raises(CheckpointError, match="has a scale that is NaN"):
        convert(path, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def header_places(files: dict[str, Path]) -> tuple[bytes, int]:
    """A file and where its header's settings end (the vocabulary comes after them)."""
    content = files["deepseek_v3"].read_bytes()
    return content, re.search(rb"tokenizer\.ggml\.tokens", content).start()  # type: ignore[union-attr]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_settings_only_raise_our_errors(files: dict[str, Path], tmp_path: Path, data: st.DataObject) -> None:
    original, end = header_places(files)
    content = bytearray(original)
    changes: Iterable[tuple[int, int]] = data.draw(
        st.lists(st.tuples(st.integers(24, end), st.sampled_from([0, 1, 2, 7, 127, 128, 255])), min_size=1, max_size=3)
    )
    for place, value in changes:
        content[place] = value
    path = tmp_path / "fuzzed.gguf"
    path.write_bytes(content)
    with suppress(CheckpointError, ConfigError), GgufCheckpoint(path) as checkpoint:
        for name in checkpoint.names():
            checkpoint.raw(name)


@pytest.mark.parametrize("token", [999, 2**32 - 1])
def test_a_token_id_outside_the_vocabulary_is_none(token: int, files: dict[str, Path], tmp_path: Path) -> None:
    def edit(metadata: dict[str, Any], _: Any) -> None:
        metadata.update({f"tokenizer.ggml.{kind}_token_id": token for kind in ("bos", "eos", "padding")})

    with GgufCheckpoint(rewritten(files["deepseek_v3"], tmp_path / "a.gguf", edit)) as checkpoint:
        config = checkpoint.config
    assert (config.bos_token_id, config.eos_token_ids, config.pad_token_id) == (None, (), None)


def test_more_tokens_than_rows_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    def edit(metadata: dict[str, Any], _: Any) -> None:
        metadata["tokenizer.ggml.tokens"] = [f"<{at}>" for at in range(385)]

    with pytest.raises(CheckpointError, match=r"has 385 tokens, but token_embd.weight only 384 rows"):
        GgufCheckpoint(rewritten(files["deepseek_v3"], tmp_path / "a.gguf", edit))
