"""A tiny Llama that the gguf package writes, every part of which a test may change first."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from deepseek.tokenizer.stream import CHARACTER_OF_BYTE

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>"]
TOKENS = [*SPECIAL, *CHARACTER_OF_BYTE.values(), "th"]
BYTES = {token: TOKENS.index(token) for token in "he"}
HIDDEN, WIDE, HEADS, KEYS = 32, 256, 4, 2


def _random_tensors() -> dict[str, np.ndarray]:
    shapes = {
        "token_embd": (len(TOKENS), HIDDEN), "output_norm": (HIDDEN,), "output": (len(TOKENS), HIDDEN),
        "blk.0.attn_norm": (HIDDEN,), "blk.0.ffn_norm": (HIDDEN,), "blk.0.attn_q": (HIDDEN, HIDDEN),
        "blk.0.attn_k": (HIDDEN // 2, HIDDEN), "blk.0.attn_v": (HIDDEN // 2, HIDDEN),
        "blk.0.attn_output": (HIDDEN, HIDDEN), "blk.0.ffn_gate": (WIDE, HIDDEN), "blk.0.ffn_up": (WIDE, HIDDEN),
        "blk.0.ffn_down": (HIDDEN, WIDE),
    }  # fmt: skip
    generator = np.random.default_rng(1)
    return {f"{name}.weight": generator.standard_normal(shape).astype("f4") for name, shape in shapes.items()}


def _values() -> dict[str, Any]:
    plain = {
        "general.name": "tiny", "general.file_type": 0, "llama.context_length": 128, "llama.embedding_length": HIDDEN,
        "llama.block_count": 1, "llama.feed_forward_length": WIDE, "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KEYS, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.merges": ["t h"], "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
    }  # fmt: skip
    return {key: (value, None, None) for key, value in plain.items()}


@dataclass
class Model:
    """values: metadata as (value, type or None, type of elements or None). stored: tensors as raw blocks."""

    values: dict[str, Any] = field(default_factory=_values)
    types: list[int] = field(default_factory=lambda: [3, 3, 3, 4] + [1] * (len(TOKENS) - len(SPECIAL)))
    tensors: dict[str, np.ndarray] = field(default_factory=_random_tensors)
    stored: dict[str, tuple[np.ndarray, gguf.GGMLQuantizationType]] = field(default_factory=dict)
    alignment: int | None = None
    parts: int = 1
    endian: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE
    edit: Callable[[bytes], bytes] = lambda data: data

    def with_all_heads(self) -> None:
        """As many heads for keys and values as for queries."""
        for name in ("blk.0.attn_k.weight", "blk.0.attn_v.weight"):
            self.tensors[name] = np.concatenate([self.tensors[name]] * 2)

    def write(self, folder: Path) -> Path:
        """The file, or the last of several parts."""
        split = -(-len(self.tensors) // self.parts) if self.parts > 1 else 0
        path = folder / "tiny.gguf"
        writer = gguf.GGUFWriter(path, "llama", endianess=self.endian, split_max_tensors=split)
        if self.alignment is not None:
            writer.add_custom_alignment(self.alignment)
        for key, (value, kind, of) in {**self.values, "tokenizer.ggml.token_type": (self.types, None, None)}.items():
            kind = kind or gguf.GGUFValueType.get_type(value)
            kind = gguf.GGUFValueType.UINT32 if kind is gguf.GGUFValueType.INT32 else kind
            writer.add_key_value(key, value, kind, of)
        for name, array in self.tensors.items():
            data, raw = self.stored.get(name, (array, None))
            writer.add_tensor(name, data, raw_dtype=raw)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        if self.parts > 1:
            return folder / f"tiny-{self.parts:05}-of-{self.parts:05}.gguf"
        path.write_bytes(self.edit(path.read_bytes()))
        return path


def tensors(model: Model) -> dict[str, np.ndarray]:
    """The weights under our names, q and k with their rows in our order (halves of a head, not pairs)."""
    layer = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
             "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}  # fmt: skip
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    names |= {f"blk.0.{theirs}": f"model.layers.0.{ours}" for theirs, ours in layer.items()}
    found = {f"{names[name.removesuffix('.weight')]}.weight": array
             for name, array in model.tensors.items() if name.removesuffix(".weight") in names}  # fmt: skip
    for name in ("q_proj", "k_proj"):
        rows = found[f"model.layers.0.self_attn.{name}.weight"]
        heads = rows.reshape(-1, HIDDEN // HEADS // 2, 2, HIDDEN)
        found[f"model.layers.0.self_attn.{name}.weight"] = heads.swapaxes(1, 2).reshape(rows.shape)
    return found
