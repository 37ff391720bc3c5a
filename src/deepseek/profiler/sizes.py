"""What a file's numbers cost: bits a weight, and bytes that one token of decoding reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from deepseek.checkpoint.checkpoint import Checkpoint, open_checkpoint
from deepseek.checkpoint.gguf.checkpoint import GgufCheckpoint
from deepseek.config import ModelConfig

_EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSize:
    """bytes_per_token: weights that a token at batch 1 is multiplied with, as they lie in the file; KV not counted."""

    weights: int
    weight_bytes: int
    bytes_per_token: int

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.weight_bytes / self.weights


def size_of(path: Path, *, allow_unknown: bool = False) -> FileSize:
    with open_checkpoint(path, allow_unknown=allow_unknown) as checkpoint:
        return _add_up(_tensors(checkpoint), checkpoint.config)


def _tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, int, int]]:
    """Name, elements and bytes. GGUF by its own tensors, so that none is decoded."""
    if isinstance(checkpoint, GgufCheckpoint):
        for name, entry in checkpoint.file.tensors.items():
            yield name, prod(entry.shape), entry.size
    else:
        for name in checkpoint.names():
            raw = checkpoint.raw(name)
            yield name, raw.elements, raw.data.nbytes


def _add_up(tensors: Iterator[tuple[str, int, int]], config: ModelConfig) -> FileSize:
    weights = weight_bytes = 0
    read = 0.0
    for name, elements, size in tensors:
        weights += elements
        weight_bytes += size
        read += size * _share_read(name, config)
    return FileSize(weights=weights, weight_bytes=weight_bytes, bytes_per_token=round(read))


def _share_read(name: str, config: ModelConfig) -> float:
    if name in (_EMBEDDING, "token_embd.weight"):
        return 1.0 if config.tie_word_embeddings else 0.0  # otherwise one row
    if config.moe is not None and (".mlp.experts." in name or "_exps." in name):
        return config.moe.num_experts_per_tok / config.moe.n_routed_experts
    return 1.0
