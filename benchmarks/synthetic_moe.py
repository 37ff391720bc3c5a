"""A checkpoint in the shape of DeepSeek V2-Lite with any number of layers: random weights, written block by block.

Run: python benchmarks/synthetic_moe.py OUT.gguf [--layers 6] [--vocab 32768] [--safetensors FOLDER]
Prints one JSON line. The same arguments give the same bytes, and memory stays under 200 MB whatever the layers.

Linear weights are Q4_0, the two halves of kv_b Q8_0, routers and norms F32. Scales have so few digits that every
weight is exact in bfloat16 too, so `--safetensors` writes the same numbers. They are sized like a trained model's:
activations neither grow nor vanish, and the routers spread tokens over all experts. The text it writes is noise.

llama.cpp loads this architecture without a query LoRA only with 26 or 27 layers. Other depths get one of rank 1,216,
whose two matrices hold as many weights as q_proj (99 %). Six layers under the full vocabulary of 102,400 would read
406 MB a token, 118 of them in the head; with 32,768 tokens the head has the share of the bytes that it has among
the 27 layers, roughly, and a token reads 326 MB.
"""

import argparse
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deepseek.checkpoint.configuration import read_config
from deepseek.checkpoint.convert import convert
from deepseek.checkpoint.gguf.format import FILE_TYPES, QUANTIZATION_VERSION
from deepseek.checkpoint.gguf.layout import PlannedTensor, planned_tensors
from deepseek.checkpoint.gguf.writer import TensorToWrite, write_gguf
from deepseek.checkpoint.tensor import Bytes
from deepseek.config import ModelConfig
from deepseek.families import config_to_gguf
from deepseek.progress import Report, silent

V2_LITE = Path(__file__).parent.parent / "tests" / "families" / "configs" / "deepseek-v2-lite.json"
LAYERS, VOCABULARY = 6, 32_768
QUERY_RANK = 1_216
_PIECE_BLOCKS = 1 << 20
_RMS_OF_NIBBLES = 4.637  # of -8 to 7, all equally likely
_RMS_OF_BYTES = 73.9


def shaped_like_v2_lite(layers: int = LAYERS, vocabulary: int = VOCABULARY) -> ModelConfig:
    """V2-Lite's published configuration with other sizes, and a query LoRA where llama.cpp wants one."""
    published = read_config(V2_LITE)
    assert published.mla is not None
    specials: dict[str, Any] = {}
    if vocabulary != published.vocab_size:
        specials = {"bos_token_id": 256, "eos_token_ids": (257,)}
    rank = None if layers in (26, 27) else QUERY_RANK
    return replace(
        published,
        num_hidden_layers=layers,
        vocab_size=vocabulary,
        mla=replace(published.mla, q_lora_rank=rank),
        **specials,
    )


def write_synthetic(path: Path, config: ModelConfig, *, seed: int = 0, report: Report = silent) -> int:
    """Write `path`, whose weights follow from `config`, the names of the tensors and `seed`. Returns its size."""
    tensors = [_tensor(planned, config, seed) for planned in planned_tensors(config)]
    general = {
        "general.type": "model",
        "general.name": f"synthetic {config.family}, {config.num_hidden_layers} layers, seed {seed}",
        "general.file_type": FILE_TYPES["Q4_0"],
        "general.quantization_version": QUANTIZATION_VERSION,
    }
    return write_gguf(path, {**config_to_gguf(config), **general, **_vocabulary(config)}, tensors, report=report)


def _tensor(planned: PlannedTensor, config: ModelConfig, seed: int) -> TensorToWrite:
    stream = np.random.SFC64([seed, zlib.crc32(planned.name.encode())])
    if len(planned.shape) == 1:
        return TensorToWrite(planned.name, "F32", planned.shape, partial(_vector, stream, planned))
    inputs = planned.shape[1] if planned.made == "k_b" else planned.shape[-1]
    size = 1 / math.sqrt(inputs)
    if planned.name == "token_embd.weight":
        size = 1.0
    elif "attn_output" in planned.name or "ffn_down" in planned.name:
        size /= math.sqrt(2 * config.num_hidden_layers)  # so that the sum over all layers stays as large as one
    if planned.name.endswith("ffn_gate_inp.weight"):
        return TensorToWrite(planned.name, "F32", planned.shape, partial(_router, stream, planned, size))
    if planned.made in ("k_b", "v_b"):
        return TensorToWrite(planned.name, "Q8_0", planned.shape, partial(_q8_0, stream, planned, size))
    return TensorToWrite(planned.name, "Q4_0", planned.shape, partial(_q4_0, stream, planned, size))


def _vector(stream: np.random.SFC64, planned: PlannedTensor) -> Iterator[Bytes]:
    """Norms around 1, correction biases around 0, in steps that bfloat16 has."""
    steps = _bytes(stream, planned.shape[0]).view(np.int8).astype(np.float32) / 8
    values = np.float32("norm" in planned.name) + np.round(steps) / 128
    yield values.astype("<f4").view(np.uint8)


def _router(stream: np.random.SFC64, planned: PlannedTensor, size: float) -> Iterator[Bytes]:
    """Logits with a spread of about 2, so that the weights of the chosen experts differ."""
    values = _bytes(stream, math.prod(planned.shape)).view(np.int8).astype("<f4")
    yield (values * np.float32(_power_of_two(2 * size / _RMS_OF_BYTES))).view(np.uint8)


def _q4_0(stream: np.random.SFC64, planned: PlannedTensor, size: float) -> Iterator[Bytes]:
    """Random nibbles under one of 64 scales of five digits, half of them negative, so that no row has a mean."""
    exact = np.linspace(0.75, 1.25, 32) * size / _RMS_OF_NIBBLES
    mantissa, exponent = np.frexp(exact)
    positive = np.ldexp(np.round(mantissa * 32) / 32, exponent).astype("<f2")
    scales = np.concatenate([positive, -positive]).view(np.uint8).reshape(64, 2)
    for blocks in _pieces(planned.shape):
        block = np.empty((blocks, 18), np.uint8)
        block[:, :2] = scales[_bytes(stream, blocks) & 63]
        block[:, 2:] = _bytes(stream, blocks * 16).reshape(blocks, 16)
        yield block.reshape(-1)


def _q8_0(stream: np.random.SFC64, planned: PlannedTensor, size: float) -> Iterator[Bytes]:
    scale = np.array([_power_of_two(size / _RMS_OF_BYTES)], "<f2").view(np.uint8)
    for blocks in _pieces(planned.shape):
        block = np.empty((blocks, 34), np.uint8)
        block[:, :2] = scale
        block[:, 2:] = _bytes(stream, blocks * 32).reshape(blocks, 32)
        yield block.reshape(-1)


def _pieces(shape: tuple[int, ...]) -> Iterator[int]:
    """How many blocks of 32 to make at a time."""
    left = math.prod(shape) // 32
    while left:
        yield min(left, _PIECE_BLOCKS)
        left -= min(left, _PIECE_BLOCKS)


def _bytes(stream: np.random.SFC64, count: int) -> Bytes:
    return stream.random_raw(-(-count // 8)).view(np.uint8)[:count]


def _power_of_two(value: float) -> float:
    return 2.0 ** round(math.log2(value))


def _vocabulary(config: ModelConfig) -> dict[str, Any]:
    """A byte-level tokenizer without merges, as large as llama.cpp wants it: a token a byte, then placeholders."""
    from tokenizers.pre_tokenizers import ByteLevel

    # Token b is byte b, written as GPT-2 writes it: printable bytes as themselves, the others from U+0100 on.
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    tokens = [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]
    assert set(tokens) == set(ByteLevel.alphabet())
    tokens += [f"[PAD{token}]" for token in range(256, config.vocab_size)]
    normal, control, unused = 1, 3, 5
    types = [normal] * 256 + [unused] * (config.vocab_size - 256)
    special = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_ids[0]}
    for token in special.values():
        assert token is not None
        types[token] = control
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "deepseek-llm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        **{f"tokenizer.ggml.{name}": token for name, token in special.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--vocab", type=int, default=VOCABULARY)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--safetensors", type=Path, help="also write the same numbers, in bfloat16, to this folder")
    args = parser.parse_args()
    config = shaped_like_v2_lite(args.layers, args.vocab)
    size = write_synthetic(args.out, config, seed=args.seed)
    if args.safetensors is not None:
        convert(args.out, args.safetensors, dtype="BF16")
    print(json.dumps({"benchmark": "synthetic_moe", "layers": args.layers, "vocab": args.vocab, "bytes": size}))


if __name__ == "__main__":
    main()
