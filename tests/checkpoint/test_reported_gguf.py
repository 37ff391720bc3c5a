"""Inputs of public bug reports on GGUF files: each is read rightly here, or refused by name.

Every row changes a whole tiny Llama. Read rightly means: all weights, decoded, are those of the model before the change
(or of `blocks` as the gguf package decodes them), and the tokenizer makes `ids` of `text`, unless the row says which
message refuses the file. verdict: `ok` if that was so when the row was added, else what was fixed.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Value

from deepseek.checkpoint.checkpoint import open_checkpoint
from deepseek.checkpoint.decode import to_float32
from deepseek.errors import CheckpointError, ConfigError, TokenizerError
from deepseek.tokenizer import AutoTokenizer
from tiny_gguf import BYTES, SPECIAL, Model, tensors

HUB = "https://github.com/"
K = "tokenizer.ggml."


@dataclass(frozen=True)
class Report:
    source: str
    input: str
    change: Callable[[Model], Any]
    error: str = ""
    ids: dict[str, list[int]] = field(default_factory=dict)
    ends: set[int] = field(default_factory=set)
    chat: str = ""
    verdict: str = "ok"


def key(name: str, value: Any, kind: Value | None = None, of: Value | None = None) -> Callable[[Model], None]:
    return lambda model: model.values.__setitem__(name, (value, kind, of))


def keys(**values: Any) -> Callable[[Model], None]:
    return lambda model: model.values.update({K + name: (value, None, None) for name, value in values.items()})


def without(*names: str) -> Callable[[Model], None]:
    return lambda model: [model.values.pop(name) for name in names]


def added(name: str, *shape: int) -> Callable[[Model], None]:
    return lambda model: model.tensors.__setitem__(name, np.ones(shape, "f4"))


def blocks(kind: Type) -> Callable[[Model], None]:
    """ffn_down in a block type, of random bytes with sane scales."""

    def change(model: Model) -> None:
        _, size = gguf.GGML_QUANT_SIZES[kind]
        count = 32 * 256 // gguf.GGML_QUANT_SIZES[kind][0]
        data = np.random.default_rng(5).integers(0, 32, (count, size), dtype=np.uint8)
        model.stored["blk.0.ffn_down.weight"] = (data.reshape(32, -1), kind)
        model.tensors["blk.0.ffn_down.weight"] = gguf.dequantize(data, kind).reshape(32, 256)

    return change


def file_bytes(edit: Callable[[bytes], bytes]) -> Callable[[Model], None]:
    return lambda model: setattr(model, "edit", edit)


def typed(**kinds: int) -> Callable[[Model], None]:
    """token_type of single tokens, by name."""
    names = {"im_end": 2, "think": 3}
    return lambda model: [model.types.__setitem__(names[name], kind) for name, kind in kinds.items()]


H, E = BYTES["h"], BYTES["e"]
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"

REPORTS = [
    Report(HUB + "oobabooga/textgen/pull/6082", "version 2", file_bytes(lambda data: data[:4] + b"\2" + data[5:])),
    Report(HUB + "ollama/ollama/pull/4938", "a big-endian file",
           lambda model: setattr(model, "endian", gguf.GGUFEndian.BIG), error="a big-endian GGUF file; convert it"),
    Report(HUB + "ollama/ollama/pull/18130", "alignment 16", lambda model: setattr(model, "alignment", 16)),
    Report(HUB + "ggml-org/llama.cpp/pull/5136", "alignment 64", lambda model: setattr(model, "alignment", 64)),
    Report(HUB + "gittensor-ai-lab/sparkinfer/issues/24", "alignment 0", key("general.alignment", 0),
           error="general.alignment is 0; it must be a power of two"),
    Report(HUB + "ollama/ollama/pull/7844", "padding after the last tensor", file_bytes(lambda data: data + bytes(64))),
    Report(HUB + "1bit-MONSTER/1bit-MONSTER/issues/1606", "cut off", file_bytes(lambda data: data[:-4096]),
           error="truncated: .* bytes are missing"),
    Report(HUB + "ollama/ollama/issues/5245", "a Git LFS pointer in place of the file",
           file_bytes(lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
           error="(?i)git lfs"),
    Report(HUB + "ggml-org/llama.cpp/issues/24884", "a key without a name", file_bytes(
        lambda data: data[:16] + struct.pack("<Q", struct.unpack_from("<Q", data, 16)[0] + 1)
        + struct.pack("<QIQ12x", 0, 8, 12) + data[24:])),
    Report(HUB + "Michael-A-Kuykendall/shimmy/issues/170", "two parts, opened by the second", lambda model: (
        setattr(model, "parts", 2))),
    Report(HUB + "ggml-org/llama.cpp/issues/6836", "a tensor twice", file_bytes(
        lambda data: data.replace(b"blk.0.attn_k.weight", b"blk.0.attn_v.weight")), error="appears twice"),
    Report(HUB + "mozilla-ai/llamafile/issues/516", "rope_freqs.weight of ones", added("rope_freqs.weight", 4)),
    Report(HUB + "huggingface/transformers/pull/30391", "Q2_K", blocks(Type.Q2_K), verdict="fixed: decoded"),
    Report(HUB + "huggingface/transformers/pull/30391", "Q3_K", blocks(Type.Q3_K), verdict="fixed: decoded"),
    Report(HUB + "kekzl/imp/issues/556", "IQ4_NL", blocks(Type.IQ4_NL), verdict="fixed: decoded"),
    Report(HUB + "EricLBuehler/mistral.rs/issues/2100", "IQ4_XS", blocks(Type.IQ4_XS), verdict="fixed: decoded"),
    Report(HUB + "unslothai/unsloth/issues/3124", "MXFP4 (type 39)", blocks(Type.MXFP4), verdict="fixed: decoded"),
    Report(HUB + "ggml-org/llama.cpp/issues/11975", "TQ2_0", blocks(Type.TQ2_0), verdict="fixed: decoded"),
    Report(HUB + "huggingface/transformers/issues/31847", "Q4_1 in a file called Q4_0", blocks(Type.Q4_1)),
    Report(HUB + "intel/neural-speed/issues/206", "Q4_K (type 12)", blocks(Type.Q4_K)),
    Report(HUB + "EricLBuehler/mistral.rs/issues/2121", "IQ3_S, which is not decoded", blocks(Type.IQ3_S),
           error="has the type IQ3_S, which this version does not read; requantise"),
    Report(HUB + "lucasjinreal/Crane/issues/127", "head counts as an array per layer",
           key("llama.attention.head_count_kv", [2], Value.ARRAY, Value.INT32)),
    Report(HUB + "ggml-org/llama.cpp/issues/8769", "no general.name and no file type",
           without("general.name", "general.file_type")),
    Report(HUB + "LostRuins/koboldcpp/pull/1191", "no head_count_kv in a model with as many heads",
           lambda model: (model.with_all_heads(), model.values.pop("llama.attention.head_count_kv"))),
    Report(HUB + "ggml-org/llama.cpp/pull/10698", "YaRN without the original context", lambda model: (
        model.values.update({"llama.rope.scaling.type": ("yarn", None, None),
                             "llama.rope.scaling.factor": (4.0, None, None)}))),
    Report(HUB + "oobabooga/textgen/pull/6119", "no bos token", without(K + "bos_token_id"), ids={"he": [H, E]}),
    Report(HUB + "ggml-org/llama.cpp/pull/3635", "an end token outside the vocabulary",
           keys(eos_token_id=32000), ids={"he": [H, E]}),
    Report(HUB + "ggml-org/llama.cpp/pull/4040", "add_bos_token", keys(add_bos_token=True), ids={"he": [1, H, E]}),
    Report(HUB + "ggml-org/llama.cpp/issues/3966", "add_bos_token false", keys(add_bos_token=False),
           ids={"he": [H, E]}),
    Report(HUB + "FlashML-org/FreeToken/pull/315", "user-defined <think>", typed(think=4),
           ids={"h<think>e": [H, 3, E]}),
    Report(HUB + "unslothai/unsloth/issues/5070", "<|im_end|> as a normal token: it still ends a turn",
           typed(im_end=1), ids={"h<|im_end|>": [H, 2]}, ends={2}),
    Report(HUB + "ollama/ollama/issues/3759", "only <|endoftext|> as end token", keys(eos_token_id=0), ends={0, 2}),
    Report(HUB + "ggml-org/llama.cpp/issues/7476", "no pre-tokenizer named", without(K + "pre"), ids={"he": [H, E]}),
    Report(HUB + "tinygrad/tinygrad/issues/17659", "pre-tokenizer default", keys(pre="default"), ids={"he": [H, E]}),
    Report(HUB + "ggml-org/llama.cpp/pull/6588", "named templates", lambda model: model.values.update({
        "tokenizer.chat_templates": (["tool_use"], Value.ARRAY, Value.STRING),
        "tokenizer.chat_template.tool_use": ("T", None, None), "tokenizer.chat_template": (TEMPLATE, None, None)}),
        chat="he"),
    Report(HUB + "abetlen/llama-cpp-python/issues/1501", "a template that writes bos, and add_bos_token",
           lambda model: (keys(add_bos_token=True)(model),
                          key("tokenizer.chat_template", "{{ bos_token }}" + TEMPLATE)(model)), chat="<|im_start|>he"),
]  # fmt: skip


@pytest.mark.parametrize("report", [pytest.param(report, id=report.input) for report in REPORTS])
def test_report(report: Report, tmp_path: Path) -> None:
    model = Model()
    report.change(model)
    path = model.write(tmp_path)
    if report.error:
        with pytest.raises((CheckpointError, ConfigError, TokenizerError), match=report.error):
            open_checkpoint(path)
        return
    with open_checkpoint(path) as checkpoint:
        found = {name: to_float32(checkpoint.raw(name)) for name in checkpoint.names()}
    for name, expected in tensors(model).items():
        assert np.array_equal(found[name], expected), (report.source, name)
    tokenizer = AutoTokenizer.from_pretrained(path)
    for text, ids in report.ids.items():
        assert tokenizer.encode(text) == ids, (report.source, text)
    assert report.ends <= tokenizer.end_ids
    if report.chat:
        message = {"role": "user", "content": "he"}
        assert tokenizer.apply_chat_template([message]) == report.chat
        starts = report.chat.count(SPECIAL[1])
        assert tokenizer.encode_chat([message]) == [1] * starts + [H, E]
