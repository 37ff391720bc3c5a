"""What a store should hold, by another way than the one that wrote it: whole float32 arrays and the slow twin."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepseek import packing
from deepseek.checkpoint.checkpoint import Checkpoint
from deepseek.checkpoint.contents import shared_weights
from deepseek.checkpoint.decode import to_float32
from deepseek.checkpoint.packed import PackedStore
from deepseek.checkpoint.save import save_checkpoint
from deepseek.checkpoint.tensor import RawTensor
from deepseek.config import IndexerConfig, ModelConfig, MoeConfig, RopeConfig
from tiny_checkpoints import LLAMA, V3

Floats = NDArray[np.float32]

_GREEDY = MoeConfig(
    n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=19, n_shared_experts=2, first_k_dense_replace=1
)

# Sizes that fit nothing: rows no multiple of 16, inputs no multiple of a group or of two.
RAGGED: Mapping[str, ModelConfig] = {
    "llama": LLAMA,
    "llama-tied-biased": replace(
        LLAMA, hidden_size=21, tie_word_embeddings=True, attention_bias=True, attention_output_bias=True, mlp_bias=True
    ),
    "qwen3": replace(LLAMA, family="qwen3", qk_norm=True, hidden_size=50, intermediate_size=67, vocab_size=130),
    "v1": replace(
        LLAMA,
        family="deepseek",
        moe=MoeConfig(n_routed_experts=5, num_experts_per_tok=2, moe_intermediate_size=19, n_shared_experts=1),
    ),
    "v2": replace(V3, family="deepseek_v2", moe=_GREEDY),
    "v3": V3,
    "v3-mtp": replace(V3, num_nextn_predict_layers=2),
    "v3-no-q-lora": replace(V3, mla=replace(V3.mla, q_lora_rank=None), attention_bias=True, attention_output_bias=True),
    "v32": replace(
        V3,
        family="deepseek_v32",
        indexer=IndexerConfig(index_n_heads=3, index_head_dim=20, index_topk=4),
        rope=RopeConfig(theta=10000.0, interleaved=True),
    ),
}


def write_checkpoint(folder: Path, config: ModelConfig, tensors: Mapping[str, RawTensor]) -> Path:
    """In the Hugging Face layout; copies in prediction layers equal what they are copies of."""
    equal = {**tensors, **{copy: tensors[original] for copy, original in shared_weights(config).items()}}
    save_checkpoint(folder, config, equal.items())
    return folder


def expected_values(checkpoint: Checkpoint) -> dict[str, Floats]:
    """Every tensor that the contract of a store names, in float32."""
    config = checkpoint.config
    copies = shared_weights(config)
    values: dict[str, Floats] = {}
    for name in checkpoint.names():
        whole = to_float32(checkpoint.raw(name))
        if name.endswith("kv_b_proj.weight"):
            values |= _heads(name.removesuffix("kv_b_proj.weight"), whole, config)
        elif name not in copies:
            values[name] = whole
    if config.tie_word_embeddings:
        values["lm_head.weight"] = values["model.embed_tokens.weight"]
    return values


def _heads(at: str, whole: Floats, config: ModelConfig) -> dict[str, Floats]:
    mla = config.mla
    assert mla is not None
    per_head = whole.reshape(config.num_attention_heads, -1, mla.kv_lora_rank)
    values = {}
    for head, rows in enumerate(per_head):
        keys = rows[: mla.qk_nope_head_dim]
        values[f"{at}k_up.{head}.weight"] = keys
        values[f"{at}k_absorb.{head}.weight"] = keys.T
        values[f"{at}v_up.{head}.weight"] = rows[mla.qk_nope_head_dim :]
    return values


def stored_values(store: PackedStore, name: str) -> Floats:
    tensor, data = store.tensors[name], np.asarray(store.bytes_of(name))
    if tensor.packing is not None:
        return packing.unpack(tensor.packing, data, tensor.rows, tensor.inputs)
    if tensor.rows_dtype is not None:
        return to_float32(RawTensor(tensor.rows_dtype.upper(), (tensor.rows, tensor.inputs), data))
    assert not data.view("<f4")[tensor.inputs :].any()
    return data.view("<f4")[: tensor.inputs]


def relative_error(found: Floats, wanted: Floats) -> float:
    """Root of the mean squared error, relative to the values'."""
    return float(np.sqrt(np.square(found - wanted).sum() / np.square(wanted).sum()))
