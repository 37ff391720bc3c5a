"""A GGUF model behind the interface of all checkpoints: canonical names, one an expert, in our order of rows."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from deepseek.checkpoint.contents import config_as_stored, log_ignored, shared_weights
from deepseek.checkpoint.decode import to_float32
from deepseek.checkpoint.gguf.dequantize import check_scales
from deepseek.checkpoint.gguf.file import GgufFile
from deepseek.checkpoint.gguf.rows import halves_from_pairs, join_kv_b, joined_dtype
from deepseek.checkpoint.tensor import RawTensor
from deepseek.config import ModelConfig
from deepseek.errors import CheckpointError
from deepseek.families import config_from_gguf, family_of
from deepseek.families.gguf_names import ROPE_DIVISORS, gguf_name, is_kv_b, is_rotated, split_kv_b
from deepseek.families.limits import MAX_EXPERTS, MAX_LAYERS
from deepseek.families.weights import Shape, weight_shapes

_OTHER_PARTS = ("v.", "mm.", "a.", "resampler.")  # vision and audio
_LAYER = re.compile(r"blk\.(\d+)\.")
_MAX_SETTING = 4096  # elements of an array in an architecture's settings


class GgufCheckpoint:
    """Implements `checkpoint.Checkpoint`. `path` is a file, or any part of a split model.

    Weights are views of the mapped file; copies are made only of q and k where GGUF reorders their rows, and of
    kv_b_proj. Raises CheckpointError or ConfigError unless the tensors are those that the metadata asks for; `ignored`
    names the tensors of other parts, and allow_unknown passes over unknown keys and all other tensors.
    """

    format: Literal["gguf"] = "gguf"

    def __init__(self, path: str | Path, *, allow_unknown: bool = False) -> None:
        self.path = Path(path)
        self.file = GgufFile(path)
        self.ignored: list[str] = []
        try:
            self.config = self._read_config(allow_unknown)
            self._shapes = weight_shapes(self.config)
            self._tensor_of = self._locate(allow_unknown)
        except BaseException:
            self.file.close()
            raise

    def names(self) -> Sequence[str]:
        return list(self._shapes)

    def shape(self, name: str) -> Shape:
        return self._shapes[name]

    def dtype(self, name: str) -> str:
        types = {self.file.tensors[part].dtype for part in self._tensor_of[name]}
        return joined_dtype(*types) if len(self._tensor_of[name]) == 2 else types.pop()

    def raw(self, name: str) -> RawTensor:
        """The weight; reads its block scales. Raises CheckpointError when one of them is NaN or infinite."""
        stored = self._tensor_of[name]
        if len(stored) == 2:
            return join_kv_b(*(self.stored(part) for part in stored))
        tensor = self.stored(stored[0], gguf_name(name).expert)
        tensor = RawTensor(tensor.dtype, self._shapes[name], tensor.data)
        if is_rotated(name) and family_of(self.config).rotates_pairs_in_gguf:
            return halves_from_pairs(tensor, self._heads(name))
        return tensor

    def stored(self, name: str, expert: int | None = None) -> RawTensor:
        """A tensor by its GGUF name, as it lies in the file; of a stack only the matrix of `expert`, if given."""
        entry, data = self.file.tensors[name], self.file.data(name)
        shape = entry.shape
        if expert is not None:
            experts = self._shape_in_file(name)[0]
            size = len(data) // experts
            data, shape = data[expert * size : (expert + 1) * size], shape[1:]
        check_scales(entry.dtype, data, f"{self.path}: tensor {name!r}")
        return RawTensor(entry.dtype, shape, data)

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _heads(self, name: str) -> int:
        is_query = ".q_proj." in name
        return self.config.num_attention_heads if is_query else self.config.num_key_value_heads

    def _read_config(self, allow_unknown: bool) -> ModelConfig:
        shapes = {name: tensor.shape for name, tensor in self.file.tensors.items()}
        divisors = self._rope_divisors()
        config = config_from_gguf(
            _settings(self.file.metadata),
            shapes,
            rope_divisors=divisors,
            where=str(self.path),
            allow_unknown=allow_unknown,
        )
        self._check_size(config, shapes)
        self._check_vocabulary(config)
        present = {name.split(".")[1] for name in shapes if name.startswith("blk.")}
        return config_as_stored(config, [f"model.layers.{layer}." for layer in present])

    def _rope_divisors(self) -> tuple[float, ...] | None:
        if ROPE_DIVISORS not in self.file.tensors:
            return None
        tensor = self.stored(ROPE_DIVISORS)
        if len(tensor.shape) != 1 or tensor.shape[0] > _MAX_SETTING:
            raise CheckpointError(f"{self.path}: tensor {ROPE_DIVISORS!r} has the shape {list(tensor.shape)}")
        return tuple(to_float32(tensor).tolist())

    def _check_size(self, config: ModelConfig, shapes: Mapping[str, Shape]) -> None:
        """Refuse numbers of layers and experts that the tensors cannot bear out, before anything is listed by them."""
        layers = config.num_hidden_layers + config.num_nextn_predict_layers
        if layers > min(MAX_LAYERS, len(shapes)):
            raise CheckpointError(f"{self.path}: block_count is {layers:,}, but there are {len(shapes)} tensors")
        if config.moe and config.moe.n_routed_experts * layers > MAX_EXPERTS:
            raise CheckpointError(
                f"{self.path}: expert_count is {config.moe.n_routed_experts:,} in {layers} layers; "
                f"the limit is {MAX_EXPERTS:,} experts in all"
            )

    def _check_vocabulary(self, config: ModelConfig) -> None:
        """A token without a row of the embedding could be asked for and not be looked up."""
        tokens = self.file.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, list) and len(tokens) > config.vocab_size:
            raise CheckpointError(
                f"{self.path}: tokenizer.ggml.tokens has {len(tokens):,} tokens, but token_embd.weight only "
                f"{config.vocab_size:,} rows; convert the model again, with its own tokenizer"
            )

    def _locate(self, allow_unknown: bool) -> dict[str, tuple[str, ...]]:
        """The file's tensors behind every weight; checks that all are there, have their shapes, and that none is left.

        kv_b_proj may have two, all others have one.
        """
        located = {name: self._stored_names(name) for name in self._shapes}
        used = {name for names in located.values() for name in names} | {ROPE_DIVISORS}
        for name in self.file.tensors:
            if name in used:
                continue
            if not allow_unknown and not self._is_spare(name, used):
                raise CheckpointError(
                    f"{self.path}: unexpected tensor {name!r}: the architecture ({self.config.family}) has no such "
                    "weight; allow unknown tensors (--allow-unknown-keys, allow_unknown_keys=True) to pass over it"
                )
            self.ignored.append(name)
        log_ignored(str(self.path), self.ignored)
        for name, shape in self._shapes.items():
            self._check_shape(name, shape, located[name])
        return located

    def _is_spare(self, name: str, used: set[str]) -> bool:
        """attn_kv_b beside its two halves, other parts of the model, layers that only predict further tokens."""
        if name.endswith(".attn_kv_b.weight") and name.replace("attn_kv_b", "attn_k_b") in used:
            return True
        if name.startswith(_OTHER_PARTS) or 0 in self.file.tensors[name].shape:
            return True
        layer = _LAYER.match(name)
        last = self.config.num_hidden_layers + self.config.num_nextn_predict_layers
        return layer is not None and int(layer[1]) >= last and f"{layer[0]}nextn.eh_proj.weight" in self.file.tensors

    def _stored_names(self, name: str) -> tuple[str, ...]:
        tensors = self.file.tensors
        halves = split_kv_b(name) if is_kv_b(name) else ()
        whole = gguf_name(name).name
        if whole not in tensors and (same_as := shared_weights(self.config).get(name)):
            whole = gguf_name(same_as).name
        stored = halves if any(half in tensors for half in halves) else (whole,)
        for part in stored:
            if part not in tensors:
                raise CheckpointError(
                    f"{self.path}: tensor {part!r} is missing; the file is incomplete, or its metadata another's"
                )
        return stored

    def _check_shape(self, name: str, shape: Shape, stored: tuple[str, ...]) -> None:
        expected: tuple[Shape, ...] = (shape,)
        if len(stored) == 2:
            mla, heads = self.config.mla, self.config.num_attention_heads
            assert mla is not None
            expected = (heads, mla.kv_lora_rank, mla.qk_nope_head_dim), (heads, mla.v_head_dim, mla.kv_lora_rank)
        elif gguf_name(name).expert is not None:
            assert self.config.moe is not None
            expected = ((self.config.moe.n_routed_experts, *shape),)
        for tensor, wanted in zip(stored, expected, strict=True):
            found = self.file.tensors[tensor].shape
            if _squeezed(found) != _squeezed(wanted):
                raise CheckpointError(
                    f"{self.path}: tensor {tensor!r} has shape {list(found)}, but the metadata asks for {list(wanted)}"
                )

    def _shape_in_file(self, stack: str) -> Shape:
        """The shape of a stack with the dimension of experts, which a file may leave out when there is one."""
        assert self.config.moe is not None
        shape = self.file.tensors[stack].shape
        return shape if len(shape) == 3 else (self.config.moe.n_routed_experts, *shape)


def _squeezed(shape: Shape) -> Shape:
    """ggml drops leading dimensions of one."""
    ones = next((i for i, length in enumerate(shape) if length != 1), len(shape) - 1)
    return shape[ones:]


def _settings(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as plain Python values. The vocabulary's arrays are left out; no setting we know is an array."""
    plain: dict[str, Any] = {}
    for key, value in metadata.items():
        if isinstance(value, np.ndarray):
            value = value[:_MAX_SETTING].tolist()
        if not (isinstance(value, list) and key.startswith("tokenizer.")):
            plain[key] = value
    return plain
