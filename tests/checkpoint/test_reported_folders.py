"""Inputs of public bug reports on safetensors folders: each is read rightly here, or refused by name.

Every row changes a whole tiny model. Read rightly means: all weights are those of the model before the change, unless
the row says which message refuses it. verdict: `ok` if that was so when the row was added, else what was fixed.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepseek.checkpoint.checkpoint import open_checkpoint
from deepseek.checkpoint.decode import from_float32
from deepseek.checkpoint.tensor import RawTensor
from deepseek.errors import CheckpointError, ConfigError
from deepseek.families import config_to_hf
from tiny_checkpoints import LLAMA, entry, equal, file_bytes, random_tensors

HUB = "https://github.com/"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
Q_PROJ = "model.layers.0.self_attn.q_proj."


@dataclass
class Model:
    """What is written: config.json, tensors by file name, and an index if there is one."""

    config: dict[str, Any] = field(default_factory=lambda: config_to_hf(LLAMA))
    files: dict[str, dict[str, RawTensor]] = field(default_factory=lambda: {SINGLE: random_tensors(LLAMA)})
    metadata: Any = field(default_factory=lambda: {"format": "pt"})
    index: dict[str, Any] | None = None
    padding: int = 0

    @property
    def tensors(self) -> dict[str, RawTensor]:
        return self.files[SINGLE]

    def rename(self, change: Callable[[str], str]) -> None:
        self.files[SINGLE] = {change(name): tensor for name, tensor in self.tensors.items()}

    def add(self, name: str, *shape: int) -> None:
        self.tensors[name] = from_float32(np.ones(shape, "f4"), "F32")

    def split(self, metadata: Any = None, **changes: Any) -> None:
        """Two shards with an index whose weight map has `changes` over it."""
        names = list(self.tensors)
        parts = {f"model-0000{part}-of-00002.safetensors": names[part - 1 :: 2] for part in (1, 2)}
        weight_map = {name: file for file, part in parts.items() for name in part}
        self.index = {"metadata": metadata, "weight_map": {**weight_map, **changes}}
        self.files = {file: {name: self.tensors[name] for name in part} for file, part in parts.items()}

    def write(self, folder: Path) -> Path:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(self.config))
        if self.index is not None:
            (folder / INDEX).write_text(json.dumps(self.index))
        for name, tensors in self.files.items():
            header: dict[str, Any] = {} if self.metadata is ... else {"__metadata__": self.metadata}
            data = b""
            for tensor, raw in tensors.items():
                header[tensor] = entry(raw.dtype, list(raw.shape), len(data), len(data) + raw.data.nbytes)
                data += raw.data.tobytes()
            text = json.dumps(header).encode()
            (folder / name).write_bytes(file_bytes(text + b" " * (-len(text) % 8 + self.padding), data))
        return folder


@dataclass(frozen=True)
class Report:
    source: str
    input: str
    change: Callable[[Model], Any]
    error: str = ""
    verdict: str = "ok"


def key(name: str, value: Any) -> Callable[[Model], None]:
    return lambda model: model.config.__setitem__(name, value)


def renamed(change: Callable[[str], str]) -> Callable[[Model], None]:
    return lambda model: model.rename(change)


def added(name: str, *shape: int) -> Callable[[Model], None]:
    return lambda model: model.add(name, *shape)


def file_named(name: str) -> Callable[[Model], None]:
    return lambda model: model.files.__setitem__(name, model.files.pop(SINGLE))


def tied(keep: str) -> Callable[[Model], None]:
    """One matrix for embedding and head, under the names that `keep` lists."""

    def change(model: Model) -> None:
        model.config["tie_word_embeddings"] = True
        shared = model.tensors.pop("model.embed_tokens.weight")
        del model.tensors["lm_head.weight"]
        model.files[SINGLE] = {**dict.fromkeys(keep.split(), shared), **model.tensors}

    return change


def stale_shards(model: Model) -> None:
    whole = dict(model.tensors)
    model.split({})
    model.files = {file: {name: replace(raw, data=raw.data * 0) for name, raw in part.items()}
                   for file, part in model.files.items()} | {SINGLE: whole}  # fmt: skip


def quantized(**values: Any) -> Callable[[Model], None]:
    return key("quantization_config", values)


def mlx_quantized(model: Model) -> None:
    model.config["quantization"] = {"group_size": 64, "bits": 4}
    model.add(Q_PROJ + "scales", 16, 1)
    model.add(Q_PROJ + "biases", 16, 1)


REPORTS = [
    Report(HUB + "ml-explore/mlx/issues/743", "metadata says format mlx",
           lambda model: setattr(model, "metadata", {"format": "mlx"})),
    Report(HUB + "thisserand/llama2_local/issues/7", "no metadata", lambda model: setattr(model, "metadata", ...)),
    Report(HUB + "foundation-model-stack/fastsafetensors/issues/96", "metadata is null",
           lambda model: setattr(model, "metadata", None)),
    Report(HUB + "ggml-org/llama.cpp/pull/18291", "data that does not begin at a multiple of 8 bytes",
           lambda model: setattr(model, "padding", 3)),
    Report(HUB + "vllm-project/vllm/pull/6758", "tied, with a copy of the embedding as head",
           tied("lm_head.weight model.embed_tokens.weight")),
    Report(HUB + "google-deepmind/gemma/issues/8", "tied, without a head", tied("model.embed_tokens.weight")),
    Report(HUB + "huggingface/transformers/issues/34759", "tied, the shared matrix only under the name of the head",
           tied("lm_head.weight"), verdict="fixed: the head's matrix is the embedding"),
    Report(HUB + "QwenLM/Qwen3-VL-Embedding/issues/89", "not tied, without a head: it would be random",
           lambda model: model.tensors.pop("lm_head.weight"), error="tensor 'lm_head.weight' of shape .* missing"),
    Report(HUB + "unslothai/unsloth/issues/2978", "an older sharded model beside model.safetensors", stale_shards),
    Report(HUB + "arcee-ai/mergekit/issues/469", "mergekit's own keys in the index",
           lambda model: model.split({"mergekit_version": "0.0.5", "total_size": 1.5})),
    Report(HUB + "verl-project/verl/issues/6259", "a tensor in two shards, the index names one", lambda model: (
        model.split({}), [part.update(random_tensors(LLAMA)) for part in model.files.values()])),
    Report(HUB + "nvidia-cosmos/cosmos-rl/issues/400", "an index without metadata", lambda model: (
        model.split(), model.index and model.index.pop("metadata"))),
    Report(HUB + "unslothai/unsloth/issues/1122", "one of two shards never written", lambda model: (
        model.split({}), model.files.popitem()), error="model-00002-of-00002.safetensors: file is missing"),
    Report(HUB + "AutoGPTQ/AutoGPTQ/issues/22", "the only file has a name of its own",
           file_named("gptq_model-4bit-128g.safetensors")),
    Report(HUB + "vllm-project/vllm-metal/pull/720", "part 1 of 1 without an index",
           file_named("model-00001-of-00001.safetensors")),
    Report(HUB + "axolotl-ai-cloud/axolotl/issues/3166", "_checkpoint_wrapped_module in the names", renamed(
        lambda name: name.replace(".mlp.", "._checkpoint_wrapped_module.mlp."))),
    Report(HUB + "meta-pytorch/torchsnapshot/issues/141", "_fsdp_wrapped_module in the names", renamed(
        lambda name: "_fsdp_wrapped_module." + name.replace(".mlp.", "._fsdp_wrapped_module.mlp."))),
    Report(HUB + "huggingface/trl/pull/86", "pretrained_model. before all names, and a value head", lambda model: (
        model.rename(lambda name: "pretrained_model." + name), model.add("v_head.summary.weight", 1, 16))),
    Report(HUB + "AnswerDotAI/fsdp_qlora/issues/70", "an adapter that was not merged", lambda model: (
        model.rename(lambda name: "base_model.model." + name.replace("q_proj.", "q_proj.base_layer.")),
        model.add(f"base_model.model.{Q_PROJ}lora_A.default.weight", 4, 16)), error="q_proj.base_layer.weight"),
    Report(HUB + "huggingface/peft/issues/2405", "modules_to_save beside the weights",
           added("lm_head.modules_to_save.default.weight", 37, 16), error="an adapter that is not merged"),
    Report(HUB + "vllm-project/llm-compressor/issues/967", "scales of a quantized KV cache",
           added("model.layers.0.self_attn.k_scale", 1)),
    Report(HUB + "vllm-project/llm-compressor/issues/967", "the same under the names of vLLM's modules",
           added("model.layers.0.self_attn.attn.k_scale", 1), verdict="fixed: also these names are passed over"),
    Report(HUB + "vllm-project/llm-compressor/issues/959", "scales of quantized weights and no such configuration",
           added(Q_PROJ + "weight_scale", 16, 1), error=r"unexpected tensor .*weight_scale"),
    Report(HUB + "unslothai/unsloth/issues/3403", "SCB, the scales of bitsandbytes, and no such configuration",
           added(Q_PROJ + "SCB", 16), error=r"unexpected tensor .*SCB"),
    Report(HUB + "bitsandbytes-foundation/bitsandbytes/issues/1946", "4 bits of bitsandbytes",
           quantized(quant_method="bitsandbytes", load_in_4bit=True), error="quant_method is 'bitsandbytes'"),
    Report(HUB + "unslothai/unsloth/issues/1599", "bitsandbytes in the configuration, switched off",
           quantized(quant_method="bitsandbytes", load_in_4bit=False, load_in_8bit=False),
           verdict="fixed: weights that it did not quantize are read"),
    Report(HUB + "ModelCloud/GPTQModel/issues/1080", "GPTQ", quantized(quant_method="gptq", bits=4),
           error="quant_method is 'gptq'"),
    Report(HUB + "vllm-project/llm-compressor/issues/1241", "a sparse model",
           quantized(quant_method="compressed-tensors", sparsity_config={"format": "sparse-bitmask"}),
           error="quant_method is 'compressed-tensors'"),
    Report(HUB + "ml-explore/mlx-swift-examples/issues/375", "MLX's quantized weights", mlx_quantized,
           error="unexpected tensor .*(scales|biases)"),
    Report(HUB + "sgl-project/sglang/issues/6054", "FP8 in the configuration of weights made BF16 again",
           quantized(quant_method="fp8", activation_scheme="dynamic", weight_block_size=[128, 128])),
    Report(HUB + "arcee-ai/mergekit/issues/398", "dtype: bfloat", key("torch_dtype", "bfloat")),
    Report(HUB + "unslothai/unsloth/issues/237", "more rows than vocab_size", key("vocab_size", 35),
           error="shape .37, 16., but the configuration asks for .35, 16."),
]  # fmt: skip


@pytest.mark.parametrize("report", [pytest.param(report, id=report.input) for report in REPORTS])
def test_report(report: Report, tmp_path: Path) -> None:
    expected = random_tensors(LLAMA)
    model = Model()
    report.change(model)
    folder = model.write(tmp_path / "model")
    if report.error:
        with pytest.raises((CheckpointError, ConfigError), match=report.error):
            open_checkpoint(folder)
        return
    with open_checkpoint(folder) as checkpoint:
        assert {*checkpoint.names()} | {"lm_head.weight"} == {*expected}
        for name in checkpoint.names():
            assert equal(checkpoint.raw(name), expected[name]), (report.source, name)
