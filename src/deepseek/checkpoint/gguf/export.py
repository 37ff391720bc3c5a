"""Any checkpoint to one GGUF file that llama.cpp loads: which type each tensor gets, and its bytes, piece by piece."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from deepseek.checkpoint.checkpoint import Checkpoint
from deepseek.checkpoint.decode import to_float32
from deepseek.checkpoint.dtypes import GGUF_BLOCKS
from deepseek.checkpoint.gguf.checkpoint import GgufCheckpoint
from deepseek.checkpoint.gguf.format import FILE_TYPES, QUANTIZATION_VERSION
from deepseek.checkpoint.gguf.layout import (
    PlannedTensor,
    differences_in_llama_cpp,
    planned_tensors,
    storable_config,
)
from deepseek.checkpoint.gguf.quantize import quantize
from deepseek.checkpoint.gguf.rows import pairs_from_halves, split_kv_b
from deepseek.checkpoint.gguf.writer import TensorToWrite, write_gguf
from deepseek.checkpoint.tensor import Bytes, RawTensor
from deepseek.config import ModelConfig
from deepseek.families import config_to_gguf
from deepseek.families.llama import llama3_divisors
from deepseek.progress import Report, silent

WRITABLE = ("F32", "F16", "BF16", "Q8_0", "Q4_0")

# Small and sensitive: llama.cpp's converter keeps the router in float32, and DeepSeek's code the indexer's weights.
_ALWAYS_F32 = (".ffn_gate_inp.weight", ".indexer.proj.weight")
_PIECE_ELEMENTS = 1 << 22


@dataclass
class Exported:
    """size: bytes of the file. types: elements by type. notes: what a user should know, a sentence each."""

    size: int = 0
    types: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def export_gguf(
    source: Checkpoint,
    path: Path,
    vocabulary: Mapping[str, Any],
    *,
    dtype: str | None,
    name: str,
    report: Report = silent,
) -> Exported:
    """Write `source` to `path`. vocabulary: the keys `tokenizer.*`. dtype: one of WRITABLE, or None to keep the types.

    As llama.cpp's converter: vectors and routers are F32, and rows that are not whole blocks become F16 (noted). With
    Q4_0 the output head stays Q8_0. A tensor that already has its type in a GGUF source is copied bit for bit.
    """
    config = storable_config(source.config)
    exported = Exported(notes=_notes(source.config, config))
    tensors = []
    for planned in planned_tensors(config):
        chosen = _type_of(planned, source, config, dtype, exported.notes)
        exported.types[chosen] += prod(planned.shape)
        tensors.append(_tensor(planned, chosen, source, config))
    general = {
        "general.type": "model",
        "general.name": name,
        "general.file_type": FILE_TYPES[exported.types.most_common(1)[0][0]],
        "general.quantization_version": QUANTIZATION_VERSION,
    }
    metadata = {**config_to_gguf(config), **general, **vocabulary}
    exported.size = write_gguf(path, metadata, tensors, report=report)
    return exported


def _notes(given: ModelConfig, stored: ModelConfig) -> list[str]:
    notes = differences_in_llama_cpp(stored)
    if given.num_nextn_predict_layers != stored.num_nextn_predict_layers:
        notes.append(
            f"left out: {given.num_nextn_predict_layers} multi-token prediction layer(s), which llama.cpp would run as "
            "ordinary layers of this architecture"
        )
    return notes


def _type_of(
    planned: PlannedTensor, source: Checkpoint, config: ModelConfig, wanted: str | None, notes: list[str]
) -> str:
    if len(planned.shape) == 1 or planned.name.endswith(_ALWAYS_F32):
        return "F32"
    if wanted is None:
        return _kept_type(planned, source, notes)
    if wanted == "Q4_0" and _is_head(planned.name, config):
        wanted = "Q8_0"
    if wanted in GGUF_BLOCKS and planned.shape[-1] % GGUF_BLOCKS[wanted].block_elements:
        notes.append(f"{planned.name} is F16: its rows of {planned.shape[-1]} are not whole {wanted} blocks")
        return "F16"
    return wanted


def _is_head(name: str, config: ModelConfig) -> bool:
    return name == ("token_embd.weight" if config.tie_word_embeddings else "output.weight")


def _kept_type(planned: PlannedTensor, source: Checkpoint, notes: list[str]) -> str:
    if isinstance(source, GgufCheckpoint) and planned.name in source.file.tensors:
        return source.file.tensors[planned.name].dtype
    types = {source.raw(weight).dtype for weight in planned.weights}
    if types == {"F8_E4M3"}:
        note = "FP8 weights are rounded to BF16, as GGUF has no such FP8 type"
        notes += [] if note in notes else [note]
        return "BF16"
    return types.pop() if len(types) == 1 else "F32"


def _tensor(planned: PlannedTensor, dtype: str, source: Checkpoint, config: ModelConfig) -> TensorToWrite:
    def chunks() -> Iterable[Bytes]:
        if isinstance(source, GgufCheckpoint):
            stored = source.file.tensors.get(planned.name)
            if stored is not None and stored.dtype == dtype:
                return [source.stored(planned.name).data]
        return _encoded(planned, dtype, source, config)

    return TensorToWrite(planned.name, dtype, planned.shape, chunks)


def _encoded(planned: PlannedTensor, dtype: str, source: Checkpoint, config: ModelConfig) -> Iterator[Bytes]:
    where = f"{source.path}: {planned.name}"
    if planned.made == "rope divisors":
        yield np.array(llama3_divisors(config.rope, config.head_dim), "<f4").view(np.uint8)
    for weight in planned.weights:
        yield from _encoded_rows(_in_gguf_order(planned, source.raw(weight), config), dtype, where)


def _in_gguf_order(planned: PlannedTensor, tensor: RawTensor, config: ModelConfig) -> RawTensor:
    if planned.made == "reordered":
        heads = config.num_attention_heads if ".attn_q." in planned.name else config.num_key_value_heads
        return pairs_from_halves(tensor if tensor.scale is None else _decoded(tensor), heads)
    if planned.made in ("k_b", "v_b"):
        assert config.mla is not None
        k_b, v_b = split_kv_b(tensor, config.num_attention_heads, config.mla)
        return k_b if planned.made == "k_b" else v_b
    return tensor


def _decoded(tensor: RawTensor) -> RawTensor:
    return RawTensor("F32", tensor.shape, to_float32(tensor).reshape(-1).view(np.uint8))


def _encoded_rows(tensor: RawTensor, dtype: str, where: str) -> Iterator[Bytes]:
    if tensor.dtype == dtype:
        yield tensor.data
        return
    for piece in row_pieces(tensor):
        yield quantize(dtype, to_float32(piece), where)


def row_pieces(tensor: RawTensor) -> Iterator[RawTensor]:
    """Whole rows of a tensor, as many at a time as have some millions of elements: views, flat in all but rows."""
    columns = tensor.shape[-1]
    rows = prod(tensor.shape[:-1])
    row_bytes = len(tensor.data) // rows
    block = tensor.scale_block[0] if tensor.scale_block else 1
    step = max(1, _PIECE_ELEMENTS // columns // block) * block
    for start in range(0, rows, step):
        count = min(step, rows - start)
        data = tensor.data[start * row_bytes : (start + count) * row_bytes]
        scale = None if tensor.scale is None else _scale_rows(tensor.scale, start // block, -(-count // block))
        yield RawTensor(tensor.dtype, (count, columns), data, scale, tensor.scale_block)


def _scale_rows(scale: RawTensor, start: int, count: int) -> RawTensor:
    width = len(scale.data) // scale.shape[0]
    return RawTensor(scale.dtype, (count, *scale.shape[1:]), scale.data[start * width : (start + count) * width])
