"""Latent attention's and rotary attention's rows: how GGUF orders them, and how we do. Nothing is computed, only moved.

llama.cpp rotates neighbouring pairs for some families, where we rotate halves of a head: there the rows of q and k are
stored as 0, d/2, 1, d/2 + 1 ... For latent attention it keeps kv_b_proj as two tensors, the keys' one transposed.
"""

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.decode import to_float32
from deepseek.checkpoint.dtypes import PLAIN
from deepseek.checkpoint.tensor import RawTensor
from deepseek.config import MlaConfig


def halves_from_pairs(tensor: RawTensor, heads: int) -> RawTensor:
    """Rows (or bias elements) from GGUF's order to ours. Blocks move whole, so quantised bits stay."""
    rows = tensor.shape[0]
    return _reordered(tensor, np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2))


def pairs_from_halves(tensor: RawTensor, heads: int) -> RawTensor:
    """The inverse of `halves_from_pairs`."""
    rows = tensor.shape[0]
    return _reordered(tensor, np.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2))


def _reordered(tensor: RawTensor, order: NDArray[np.int64]) -> RawTensor:
    rows = tensor.data.reshape(tensor.shape[0], -1)
    return RawTensor(tensor.dtype, tensor.shape, rows[order.reshape(-1)].reshape(-1))


def join_kv_b(k_b: RawTensor, v_b: RawTensor) -> RawTensor:
    """kv_b_proj, (heads * (nope + value), rank), from (heads, rank, nope) and (heads, value, rank).

    The type stays when both have the same plain one; quantised blocks run along other rows here, so they become F32.
    """
    dtype = joined_dtype(k_b.dtype, v_b.dtype)
    plain = k_b.dtype == v_b.dtype == dtype
    keys, values = (_elements(tensor) if plain else to_float32(tensor) for tensor in (k_b, v_b))
    joined = np.concatenate([keys.swapaxes(1, 2), values], axis=1)
    heads, rows, rank = joined.shape
    return RawTensor(dtype, (heads * rows, rank), _bytes(joined))


def joined_dtype(*halves: str) -> str:
    """The type of `join_kv_b` of halves of these types."""
    return halves[0] if len(set(halves)) == 1 and halves[0] in PLAIN else "F32"


def split_kv_b(kv_b: RawTensor, heads: int, mla: MlaConfig) -> tuple[RawTensor, RawTensor]:
    """The inverse of `join_kv_b`; types other than plain ones become F32."""
    plain = kv_b.dtype in PLAIN and kv_b.scale is None
    whole = (_elements(kv_b) if plain else to_float32(kv_b)).reshape(heads, -1, mla.kv_lora_rank)
    dtype = kv_b.dtype if plain else "F32"
    keys = whole[:, : mla.qk_nope_head_dim].swapaxes(1, 2)
    values = whole[:, mla.qk_nope_head_dim :]
    return RawTensor(dtype, keys.shape, _bytes(keys)), RawTensor(dtype, values.shape, _bytes(values))


def _elements(tensor: RawTensor) -> NDArray[np.uint16] | NDArray[np.uint32]:
    width = PLAIN[tensor.dtype].block_bytes
    return tensor.data.view(f"<u{width}").reshape(tensor.shape)


def _bytes(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
