"""Stores of every family: what is in them, where it lies, and what the numbers are."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from deepseek.checkpoint.checkpoint import Checkpoint, open_checkpoint
from deepseek.checkpoint.contents import shared_weights
from deepseek.checkpoint.convert import convert
from deepseek.checkpoint.packed import PackedStore, open_store, verify_store, write_store
from deepseek.checkpoint.packed.choose import Quantize
from deepseek.checkpoint.tensor import RawTensor
from deepseek.config import ModelConfig
from deepseek.errors import CheckpointError
from gguf_models import CONFIGS, random_weights, tokenizer_files
from packed_values import RAGGED, expected_values, relative_error, stored_values, write_checkpoint
from tiny_checkpoints import V3_FP8, quantize, random_tensors


def packed(checkpoint: Checkpoint, folder: Path, quantize: Quantize) -> PackedStore:
    path = folder / f"{quantize}.packed"
    write_store(path, checkpoint, quantize=quantize)
    return open_store(path)


@pytest.fixture(params=RAGGED)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Checkpoint]:
    config = RAGGED[request.param]
    with open_checkpoint(write_checkpoint(tmp_path / "hf", config, random_tensors(config, dtype="F32"))) as opened:
        yield opened


def test_f32_holds_every_tensor_and_value(checkpoint: Checkpoint, tmp_path: Path) -> None:
    store, expected = packed(checkpoint, tmp_path, "f32"), expected_values(checkpoint)
    assert store.config == checkpoint.config
    assert store.tensors.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(stored_values(store, name), values.reshape(stored_values(store, name).shape)), name
    verify_store(store)


@pytest.mark.parametrize(("choice", "limit"), [("bf16", 0.003), ("int8", 0.01), ("int4", 0.1), ("auto", 0.01)])
def test_quantised_values_are_near(checkpoint: Checkpoint, tmp_path: Path, choice: Quantize, limit: float) -> None:
    store = packed(checkpoint, tmp_path, choice)
    for name, values in expected_values(checkpoint).items():
        tensor, found = store.tensors[name], stored_values(store, name)
        exact = tensor.packing is None or tensor.packing.kind == "f32"
        assert relative_error(found, values) <= (0 if exact else limit), name
        sensitive = name.endswith(("mlp.gate.weight", "weights_proj.weight")) or tensor.kind != "matrix"
        assert exact == sensitive, name


def test_the_head_and_latent_attention_stay_in_8_bits(checkpoint: Checkpoint, tmp_path: Path) -> None:
    store = packed(checkpoint, tmp_path, "int4")
    types = {name: tensor.type_name for name, tensor in store.tensors.items() if tensor.packing}
    kept = [
        name for name in types if name == "lm_head.weight" or ".k_up." in name or "_absorb." in name or "v_up" in name
    ]
    assert {types[name] for name in kept} == {"int8-g32"}
    others = {
        types[name] for name in types.keys() - kept if not name.endswith(("mlp.gate.weight", "weights_proj.weight"))
    }
    assert others == {"int4-g32"}


def test_places(checkpoint: Checkpoint, tmp_path: Path) -> None:
    store = packed(checkpoint, tmp_path, "auto")
    tensors = list(store.tensors.values())
    for tensor, after in pairwise(tensors):
        assert tensor.offset % 64 == 0
        assert tensor.offset + tensor.nbytes <= after.offset
    assert store.data.size == tensors[-1].offset + tensors[-1].nbytes + 4096
    assert not store.data[-4096:].any()
    assert not store.data.flags.writeable
    _check_neighbours(store)
    _check_heads(store)
    _check_experts(store)


def _check_neighbours(store: PackedStore) -> None:
    """What reads the same activations lies side by side, without a gap."""
    names = list(store.tensors)
    for name in names:
        for first, second in (("q_proj.", "k_proj."), ("k_proj.", "v_proj."), ("gate_proj.", "up_proj.")):
            follower = name.replace(f"{first}weight", f"{second}weight")
            if name.endswith(f"{first}weight") and follower in names:
                one, other = store.tensors[name], store.tensors[follower]
                assert one.offset + one.nbytes == other.offset, name


def _check_heads(store: PackedStore) -> None:
    if store.config.mla is None:
        return
    layers = store.config.num_hidden_layers + store.config.num_nextn_predict_layers
    for at in (
        f"model.layers.{layer}.self_attn.{part}." for layer in range(layers) for part in ("k_up", "k_absorb", "v_up")
    ):
        heads = [store.tensors[f"{at}{head}.weight"] for head in range(store.config.num_attention_heads)]
        assert {head.offset - heads[0].offset - at * heads[0].nbytes for at, head in enumerate(heads)} == {0}
        assert len({(head.packing, head.rows, head.inputs) for head in heads}) == 1


def _check_experts(store: PackedStore) -> None:
    moe = store.config.moe
    layers = [layer for layer in range(store.config.num_hidden_layers) if store.config.is_moe_layer(layer)]
    for layer in layers:
        assert moe is not None
        for expert in range(moe.n_routed_experts):
            offset, nbytes = store.expert_extent(layer, expert)
            at = f"model.layers.{layer}.mlp.experts.{expert}."
            assert offset % 4096 == 0
            assert nbytes == sum(store.tensors[f"{at}{which}_proj.weight"].nbytes for which in ("gate", "up", "down"))


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("name", CONFIGS)
def test_gguf_is_repacked_exactly(name: str, dtype: str, tmp_path: Path) -> None:
    """By default, whatever has a packing of its own keeps every value; kv_b's third orientation cannot."""
    gguf = tmp_path / "model.gguf"
    _write_gguf(gguf, CONFIGS[name], dtype)
    choice: Quantize = "f32" if dtype in ("F32", "F16") else "bf16" if dtype == "BF16" else "auto"
    with open_checkpoint(gguf) as checkpoint:
        store, expected = packed(checkpoint, tmp_path, choice), expected_values(checkpoint)
        assert store.tensors.keys() == expected.keys()
        for tensor, values in expected.items():
            found = stored_values(store, tensor)
            if dtype in ("Q8_0", "Q4_0") and ".k_up." in tensor:
                assert relative_error(found, values) < 0.01, tensor
            else:
                assert np.array_equal(found, values.reshape(found.shape)), tensor
        if dtype == "Q4_0":
            kinds = {t.type_name for n, t in store.tensors.items() if n.endswith("_proj.weight") and "indexer" not in n}
            assert kinds == {"int4-g32"}


def _write_gguf(path: Path, config: ModelConfig, dtype: str) -> None:
    folder = write_checkpoint(path.with_suffix(""), config, random_weights(config))
    for file, content in tokenizer_files().items():
        (folder / file).write_bytes(content)
    convert(folder, path, dtype=dtype)


def test_other_gguf_types_can_be_asked_for(tmp_path: Path) -> None:
    """int8 of a 4-bit file is exact too; int4 keeps it as it is."""
    _write_gguf(tmp_path / "model.gguf", CONFIGS["llama"], "Q4_0")
    with open_checkpoint(tmp_path / "model.gguf") as checkpoint:
        expected = expected_values(checkpoint)
        for choice, kind in (("int8", "int8-g32"), ("int4", "int4-g32")):
            store = packed(checkpoint, tmp_path, choice)
            assert store.tensors["model.layers.0.mlp.up_proj.weight"].type_name == kind
            for name, values in expected.items():
                assert np.array_equal(stored_values(store, name), values), name


def test_fp8_blocks(tmp_path: Path) -> None:
    """Heads of kv_b_proj end within blocks of scales; the whole is decoded first."""
    tensors = quantize(random_tensors(V3_FP8), V3_FP8)
    with open_checkpoint(write_checkpoint(tmp_path / "hf", V3_FP8, tensors)) as checkpoint:
        store = packed(checkpoint, tmp_path, "f32")
        for name, values in expected_values(checkpoint).items():
            assert np.array_equal(stored_values(store, name), values), name
        store = packed(checkpoint, tmp_path, "int8")
        for name, values in expected_values(checkpoint).items():
            assert relative_error(stored_values(store, name), values) < 0.01, name


@pytest.mark.parametrize(("dtype", "kind"), [("F32", "f32"), ("F16", "f16"), ("BF16", "bf16")])
def test_embeddings_stay_as_they_are(dtype: str, kind: str, tmp_path: Path) -> None:
    config = RAGGED["llama-tied-biased"]
    folder = write_checkpoint(tmp_path / "hf", config, random_tensors(config, dtype=dtype))
    with open_checkpoint(folder) as checkpoint:
        store = packed(checkpoint, tmp_path, "int4")
        embedding = expected_values(checkpoint)["model.embed_tokens.weight"]
    assert store.tensors["model.embed_tokens.weight"].rows_dtype == kind
    assert np.array_equal(stored_values(store, "model.embed_tokens.weight"), embedding)


def test_large_models_default_to_four_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RAGGED["v3"]
    folder = write_checkpoint(tmp_path / "hf", config, random_tensors(config))
    for limit, kind in ((10**6, "int8-g32"), (10**3, "int4-g32")):
        monkeypatch.setattr("deepseek.checkpoint.packed.choose.INT8_BELOW", limit)
        with open_checkpoint(folder) as checkpoint:
            store = packed(checkpoint, tmp_path, "auto")
        assert store.tensors["model.layers.1.mlp.experts.0.up_proj.weight"].type_name == kind


def test_copies_that_differ_are_refused(tmp_path: Path) -> None:
    config = RAGGED["v3-mtp"]
    tensors = random_tensors(config)
    tensors |= {copy: tensors[original] for copy, original in shared_weights(config).items()}
    copy = "model.layers.3.shared_head.head.weight"
    tensors[copy] = replace(tensors[copy], data=tensors[copy].data ^ 1)
    from deepseek.checkpoint.save import save_checkpoint

    save_checkpoint(tmp_path / "hf", config, tensors.items())
    with (
        open_checkpoint(tmp_path / "hf") as checkpoint,
        pytest.raises(CheckpointError, match=r"layers\.3\.shared_head\.head\.weight' differs from 'lm_head"),
    ):
        packed(checkpoint, tmp_path, "auto")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("choice", ["int4", "int8", "bf16", "f32"])
@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_what_is_not_finite_is_refused_by_name(name: str, choice: Quantize, value: float, tmp_path: Path) -> None:
    config = RAGGED["llama"]
    tensors = random_tensors(config, dtype="F32")
    values = tensors[name].data.copy()
    values.view("<f4")[-1] = value
    tensors[name] = RawTensor("F32", tensors[name].shape, values)
    folder = write_checkpoint(tmp_path / "hf", config, tensors)
    with open_checkpoint(folder) as checkpoint, pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        packed(checkpoint, tmp_path, choice)


def test_an_unknown_choice_is_refused(tmp_path: Path) -> None:
    config = RAGGED["llama"]
    folder = write_checkpoint(tmp_path / "hf", config, random_tensors(config))
    with open_checkpoint(folder) as checkpoint, pytest.raises(CheckpointError, match="quantize is 'int5'; it must be"):
        packed(checkpoint, tmp_path, "int5")  # type: ignore[arg-type]
