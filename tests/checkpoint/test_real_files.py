"""Folders and files as they really come: wrapped names, indexes that do not fit, files of other kinds, odd names."""

import gzip
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gguf_models
from deepseek.checkpoint.checkpoint import open_checkpoint
from deepseek.checkpoint.convert import convert
from deepseek.checkpoint.decode import from_float32
from deepseek.checkpoint.file_kinds import describe
from deepseek.checkpoint.gguf.file import GgufFile
from deepseek.checkpoint.hf_folder import SafetensorsCheckpoint
from deepseek.checkpoint.tensor import RawTensor
from deepseek.config import ModelConfig
from deepseek.errors import CheckpointError, DeepseekError
from gguf_models import CONFIGS
from tiny_checkpoints import LLAMA, V3, V3_FP8, equal, quantize, random_tensors, write_file, write_folder, write_shards

INDEX = "model.safetensors.index.json"
HEAD, NORM, Q0 = "lm_head.weight", "model.norm.weight", "model.layers.0.self_attn.q_proj.weight"
TIED = replace(LLAMA, tie_word_embeddings=True)
WITH_MTP = replace(V3, num_nextn_predict_layers=1)
Tensors = dict[str, RawTensor]


def zeros(*shape: int) -> RawTensor:
    return from_float32(np.zeros(shape, np.float32), "F32")


def assert_holds(path: Path, tensors: Tensors) -> list[str]:
    """Opens, holds exactly these weights; returns what it ignored."""
    with open_checkpoint(path) as checkpoint:
        assert set(checkpoint.names()) == set(tensors)
        for name, tensor in tensors.items():
            assert equal(checkpoint.raw(name), tensor), name
        return checkpoint.ignored if isinstance(checkpoint, SafetensorsCheckpoint) else []


def after_model(prefix: str) -> Callable[[str], str]:
    """The text half of a larger model: only names with `model.` move."""
    return lambda name: prefix + name.removeprefix("model.") if name.startswith("model.") else name


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: "_orig_mod." + name,
        lambda name: "module." + name,
        lambda name: "module._orig_mod." + name,
        lambda name: "_forward_module." + name,
        lambda name: "base_model.model." + name,
        lambda name: "language_model." + name,
        lambda name: "model.language_model." + name,
        lambda name: "transformer." + name,
        after_model("model.language_model."),
        after_model("language_model."),
        after_model("model.text_model."),
        after_model("transformer."),
        after_model("model.model."),
        after_model(""),
        lambda name: name.replace(".self_attn.", "._orig_mod.self_attn.").replace(".mlp.", "._orig_mod.mlp."),
        lambda name: name.replace("layers.1.", "layers.1._fsdp_wrapped_module._checkpoint_wrapped_module."),
    ],
)
@pytest.mark.parametrize("config", [LLAMA, TIED, WITH_MTP, V3_FP8], ids=["llama", "tied", "mtp", "fp8"])
def test_names_as_wrappers_leave_them(rename: Callable[[str], str], config: ModelConfig, tmp_path: Path) -> None:
    tensors = random_tensors(config)
    if config.fp8_block:
        tensors = quantize(tensors, config)
    stored = {rename(name): tensor for name, tensor in tensors.items()}
    others = {"visual.blocks.0.attn.qkv.weight": zeros(4, 4), "dummy": zeros(0)}
    ignored = assert_holds(write_folder(tmp_path, config, {**stored, **others}), tensors)
    assert len(ignored) == len(others)


@given(segments=st.lists(st.sampled_from(["module", "_orig_mod", "model", "lm", "base_model", "a"]), max_size=5))
def test_any_prefix_is_found(segments: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    prefix = "".join(segment + "." for segment in segments)
    tensors = random_tensors(LLAMA)
    folder = tmp_path_factory.mktemp("prefix")
    assert_holds(write_folder(folder, LLAMA, {prefix + name: tensor for name, tensor in tensors.items()}), tensors)


def test_two_copies_of_a_model(tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    copy = {"ema." + name: tensor for name, tensor in tensors.items()}
    assert_holds(write_folder(tmp_path, LLAMA, {**tensors, **copy}), tensors)
    copy["ema.model.norm.weight"] = zeros(16)
    with pytest.raises(CheckpointError, match="two copies of the model that differ"):
        open_checkpoint(write_folder(tmp_path, LLAMA, {**tensors, **copy}))
    with pytest.raises(CheckpointError, match="are the same weight with other values"):
        open_checkpoint(write_folder(tmp_path, LLAMA, {**tensors, "_orig_mod." + NORM: zeros(16)}))


def test_a_draft_model_beside_the_model_is_ignored(tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    draft = {f"draft.{name}": tensor for name, tensor in tensors.items() if "layers.1" not in name}
    assert len(assert_holds(write_folder(tmp_path, LLAMA, {**tensors, **draft}), tensors)) == len(draft)


IGNORED = {
    "vision_tower.encoder.layers.0.self_attn.q_proj.weight": (4, 4),
    "multi_modal_projector.linear_1.weight": (4, 4),
    "v_head.summary.weight": (1, 16),
    "score.weight": (2, 16),
    "mtp.layers.0.input_layernorm.weight": (16,),
    "model.layers.0.self_attn.rotary_emb.inv_freq": (2,),
    "model.layers.1.self_attn.rotary_emb.cos_cached": (1, 1, 8, 4),
    "model.layers.0.self_attn.masked_bias": (),
    "model.layers.0.self_attn.bias": (1, 1, 8, 8),
    "model.layers.0.self_attn.k_scale": (1,),
    "model.embed_tokens.dummy": (0,),
}
REFUSED = {
    "model.layers.0.self_attn.q_proj.bias": (16,),
    "model.layers.0.self_attn.q_proj.weight_scale": (16, 1),
    "model.layers.0.self_attn.q_proj.input_scale": (1,),
    "model.layers.0.self_attn.q_norm.weight": (4,),
    "model.layers.0.mlp.gate_up_proj.weight": (48, 16),
    "model.layers.0.self_attn.q_proj.lora_A.default.weight": (2, 16),
    "model.layers.2.input_layernorm.weight": (16,),
    "model.norm.bias": (16,),
    "lm_head.bias": (37,),
}


@pytest.mark.parametrize("name", IGNORED)
def test_tensors_of_other_parts_are_ignored_and_listed(name: str, tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    assert assert_holds(write_folder(tmp_path, LLAMA, {**tensors, name: zeros(*IGNORED[name])}), tensors) == [name]


@pytest.mark.parametrize("name", REFUSED)
def test_tensors_that_would_change_the_model_are_refused(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, LLAMA, {**random_tensors(LLAMA), name: zeros(*REFUSED[name])})
    with pytest.raises(CheckpointError, match="unexpected tensor"):
        open_checkpoint(folder)


def test_prediction_layers_that_the_config_does_not_name_are_ignored(tmp_path: Path) -> None:
    tensors = random_tensors(WITH_MTP)
    kept = {name: tensor for name, tensor in tensors.items() if "layers.2." not in name}
    assert len(assert_holds(write_folder(tmp_path, V3, tensors), kept)) == len(tensors) - len(kept)


class TestIndex:
    tensors = random_tensors(LLAMA)

    def shards(self, folder: Path, *parts: Tensors) -> Path:
        names = list(self.tensors)
        halves = [{name: self.tensors[name] for name in part} for part in (names[:9], names[9:])]
        return write_shards(folder, LLAMA, list(parts) or halves)

    def edit(self, folder: Path, change: Callable[[dict[str, str]], object]) -> None:
        index = json.loads((folder / INDEX).read_text())
        change(index["weight_map"])
        (folder / INDEX).write_text(json.dumps(index))

    @pytest.mark.parametrize("file", ["model-00002-of-00002.safetensors", "model-00003-of-00003.safetensors"])
    def test_what_nobody_needs_may_be_absent(self, file: str, tmp_path: Path) -> None:
        folder = self.shards(tmp_path)
        self.edit(folder, lambda index: index.update({"mtp.fc.weight": file}))
        assert_holds(folder, self.tensors)

    def test_a_tensor_that_the_index_leaves_out(self, tmp_path: Path) -> None:
        folder = self.shards(tmp_path)
        self.edit(folder, lambda index: index.pop(HEAD))
        assert_holds(folder, self.tensors)

    def test_a_tensor_that_the_index_places_in_the_other_file(self, tmp_path: Path) -> None:
        folder = self.shards(tmp_path)
        self.edit(folder, lambda index: index.update({HEAD: "model-00001-of-00002.safetensors"}))
        assert_holds(folder, self.tensors)

    def test_of_two_the_index_says_which(self, tmp_path: Path) -> None:
        names = list(self.tensors)
        first = {name: self.tensors[name] for name in names[:9]}
        folder = self.shards(tmp_path, {**first, HEAD: zeros(37, 16)}, {name: self.tensors[name] for name in names[9:]})
        assert_holds(folder, self.tensors)

    def test_no_index(self, tmp_path: Path) -> None:
        folder = self.shards(tmp_path)
        (folder / INDEX).unlink()
        assert_holds(folder, self.tensors)
        assert_holds(folder / "model-00002-of-00002.safetensors", self.tensors)
        (folder / "model-00002-of-00002.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"model-00002-of-00002.safetensors: file is missing"):
            open_checkpoint(folder)

    def test_an_index_of_another_name_or_of_one_file(self, tmp_path: Path) -> None:
        folder = self.shards(tmp_path, self.tensors)
        assert_holds(folder / INDEX, self.tensors)
        (folder / INDEX).rename(folder / "model.fp16.safetensors.index.json")
        assert_holds(folder, self.tensors)

    def test_files_beside_the_model(self, tmp_path: Path) -> None:
        folder = self.shards(tmp_path)
        for name in ("consolidated.safetensors", "adapter_model.safetensors", "optimizer.safetensors"):
            write_file(folder / name, {"x": zeros(3)})
        assert_holds(folder, self.tensors)
        (folder / INDEX).unlink()
        assert_holds(folder, self.tensors)

    @pytest.mark.parametrize(
        ("name", "message"), [("adapter_model", "a LoRA adapter"), ("consolidated", "Mistral's own layout")]
    )
    def test_only_files_that_are_no_model(self, name: str, message: str, tmp_path: Path) -> None:
        write_folder(tmp_path, LLAMA, self.tensors)
        (tmp_path / "model.safetensors").rename(tmp_path / f"{name}.safetensors")
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(tmp_path)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    convert(gguf_models.write_folder(folder / "source", CONFIGS["llama"]), folder / "tiny.gguf")
    return folder / "tiny.gguf"


@pytest.mark.parametrize("name", ["sha256-00aa", "TINY.GGUF", "model.bin", "model.safetensors", "weights"])
def test_a_gguf_file_is_known_by_its_first_bytes(name: str, gguf: Path, tmp_path: Path) -> None:
    shutil.copy(gguf, tmp_path / name)
    with open_checkpoint(tmp_path / name) as checkpoint:
        assert checkpoint.format == "gguf"


def header_only(*values: tuple[str, str]) -> bytes:
    def text(value: str) -> bytes:
        return len(value).to_bytes(8, "little") + value.encode()

    keys = b"".join(text(key) + (8).to_bytes(4, "little") + text(value) for key, value in values)
    return b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + len(values).to_bytes(8, "little") + keys


def test_ggufs_beside_a_model(gguf: Path, tmp_path: Path) -> None:
    shutil.copy(gguf, tmp_path / "tiny.gguf")
    (tmp_path / "mmproj-f16.gguf").write_bytes(header_only(("general.architecture", "clip")))
    adapter = header_only(("general.architecture", "llama"), ("general.type", "adapter"))
    (tmp_path / "lora.GGUF").write_bytes(adapter)
    (tmp_path / "ggml-vocab.gguf").write_bytes(header_only(("general.architecture", "llama")))
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.path.name == "tiny.gguf"
    shutil.copy(gguf, tmp_path / "tiny-Q8_0.gguf")
    with pytest.raises(CheckpointError, match=r"2 GGUF models; give the path of one: tiny-Q8_0.gguf \(.* MB\), tiny"):
        open_checkpoint(tmp_path)


def pickled() -> bytes:
    return pickle.dumps({"a": [1]}, protocol=2)


def zipped() -> bytes:
    return b"PK\x03\x04" + bytes(60)


KINDS = {
    "web page": (b"\n<!DOCTYPE html><html>" + bytes(600), "a web page, so the download failed"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "run git lfs pull"),
    "pickle": (pickled(), "pickle.*never opened"),
    "zip": (zipped(), "PyTorch pickle.*never opened"),
    "gzip": (gzip.compress(b"x"), "gzip archive: unpack it"),
    "tar": (b"x".ljust(257, b"\0") + b"ustar\0", "tar archive: unpack it"),
    "old ggml": (b"tjgg" + bytes(40), "GGJT file of before GGUF"),
    "error": (b'{"error":"Repository not found"}', "server's error message"),
    "zeros": (bytes(4096), "file of zeros"),
    "empty": (b"", "empty|0 bytes"),
}


@pytest.mark.parametrize("name", ["model.gguf", "model.safetensors", "model"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_of_other_kinds_are_named(kind: str, name: str, tmp_path: Path) -> None:
    content, message = KINDS[kind]
    write_folder(tmp_path, LLAMA, random_tensors(LLAMA))
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        open_checkpoint(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


@given(st.binary(max_size=600))
def test_no_beginning_of_a_file_confuses(start: bytes) -> None:
    assert describe(start) is None or len(describe(start) or "") > 10


def test_a_truncated_file_says_how_much_is_missing(gguf: Path, tmp_path: Path) -> None:
    content = gguf.read_bytes()
    (tmp_path / "a.gguf").write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match=r"truncated: \d+ of [\d,]+ bytes are missing.* fetch the file again"):
        GgufFile(tmp_path / "a.gguf")
    folder = write_folder(tmp_path / "f", LLAMA, random_tensors(LLAMA))
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1000])
    with pytest.raises(CheckpointError, match=r"truncated: 1,000 of [\d,]+ bytes are missing"):
        open_checkpoint(folder)


def test_a_zip_of_a_model_stays_closed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w") as archive:
        archive.writestr("data.pkl", pickled())
    with pytest.raises(DeepseekError, match="pickle files can run code"):
        open_checkpoint(tmp_path / "pytorch_model.bin")
