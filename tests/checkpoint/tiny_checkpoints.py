"""Small architectures and files for the tests of checkpoints, written by hand where that matters."""

import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deepseek.checkpoint.decode import from_float32
from deepseek.checkpoint.tensor import RawTensor
from deepseek.config import MlaConfig, ModelConfig, MoeConfig, RopeConfig
from deepseek.families import config_to_hf
from deepseek.families.weights import weight_shapes

LLAMA = ModelConfig(
    family="llama",
    vocab_size=37,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=4,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    rope=RopeConfig(theta=10000.0),
    bos_token_id=1,
    eos_token_ids=(2,),
)

V3 = ModelConfig(
    family="deepseek_v3",
    vocab_size=41,
    hidden_size=40,
    intermediate_size=56,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=24,
    max_position_embeddings=64,
    rms_norm_eps=1e-6,
    rope=RopeConfig(theta=10000.0, interleaved=True),
    mla=MlaConfig(kv_lora_rank=16, q_lora_rank=12, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=20),
    moe=MoeConfig(
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        n_shared_experts=1,
        scoring_func="sigmoid",
        topk_method="noaux_tc",
        n_group=2,
        topk_group=1,
        norm_topk_prob=True,
        routed_scaling_factor=2.5,
        first_k_dense_replace=1,
    ),
)

V3_FP8 = replace(V3, fp8_block=(16, 16))  # 40, 56 and 20 leave partial blocks at the edges


def random_tensors(config: ModelConfig, seed: int = 0, dtype: str = "BF16") -> dict[str, RawTensor]:
    generator = np.random.default_rng(seed)
    shapes = weight_shapes(config)
    return {name: from_float32(generator.standard_normal(shape).astype("f4"), dtype) for name, shape in shapes.items()}


def entry(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def file_bytes(header: bytes | Mapping[str, Any], data: bytes = b"", *, length: int | None = None) -> bytes:
    """A .safetensors file with any header, right or wrong."""
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
        header = header.ljust(-(-len(header) // 8) * 8)
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def write_file(path: Path, tensors: Mapping[str, RawTensor]) -> None:
    """A right one, by hand; scales become tensors of their own."""
    flat = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.scale is not None:
            flat[name + "_scale_inv"] = tensor.scale
    header, data = {}, b""
    for name, tensor in flat.items():
        header[name] = entry(tensor.dtype, list(tensor.shape), len(data), len(data) + tensor.data.nbytes)
        data += tensor.data.tobytes()
    path.write_bytes(file_bytes(header, data))


def write_folder(folder: Path, config: ModelConfig, tensors: Mapping[str, RawTensor], **keys: Any) -> Path:
    """config.json (with `keys` over it) and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    values = config_to_hf(config)
    if config.fp8_block:
        values["quantization_config"] = {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": list(config.fp8_block),
        }
    (folder / "config.json").write_text(json.dumps({**values, **keys}))
    write_file(folder / "model.safetensors", tensors)
    return folder


def write_shards(folder: Path, config: ModelConfig, shards: list[Mapping[str, RawTensor]]) -> Path:
    write_folder(folder, config, {})
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for at, tensors in enumerate(shards):
        name = f"model-{at + 1:05}-of-{len(shards):05}.safetensors"
        write_file(folder / name, tensors)
        for tensor, raw in tensors.items():
            weight_map[tensor] = name
            if raw.scale is not None:
                weight_map[tensor + "_scale_inv"] = name
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def equal(ours: RawTensor, theirs: RawTensor) -> bool:
    """Same type, shape, bytes and scales."""
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape) or ours.data.tobytes() != theirs.data.tobytes():
        return False
    if ours.scale is None or theirs.scale is None:
        return ours.scale is theirs.scale
    return ours.scale_block == theirs.scale_block and equal(ours.scale, theirs.scale)


def quantize(tensors: Mapping[str, RawTensor], config: ModelConfig, seed: int = 0) -> dict[str, RawTensor]:
    """Random E4M3 codes (no NaN) and scales for every matrix that DeepSeek-V3 keeps in FP8."""
    assert config.fp8_block is not None
    generator = np.random.default_rng(seed)
    quantized = dict(tensors)
    for name, tensor in tensors.items():
        kept = "embed_tokens" in name or "head" in name or name.endswith("mlp.gate.weight")
        if len(tensor.shape) != 2 or kept:
            continue
        codes = generator.integers(0, 256, tensor.elements).astype(np.uint8)
        codes[(codes & 0x7F) == 0x7F] = 0x7E
        blocks = tuple(-(-size // block) for size, block in zip(tensor.shape, config.fp8_block, strict=True))
        scale = from_float32(generator.uniform(1e-4, 2.0, blocks).astype("f4"), "F32")
        quantized[name] = RawTensor("F8_E4M3", tensor.shape, codes, scale, config.fp8_block)
    return quantized
