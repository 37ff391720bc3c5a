"""The numbers behind a slot: weights of a checkpoint, kv_b_proj cut into heads, GGUF's halves of it as they are."""

import numpy as np

from deepseek.checkpoint.checkpoint import Checkpoint
from deepseek.checkpoint.contents import shared_weights
from deepseek.checkpoint.decode import from_float32, to_float32
from deepseek.checkpoint.gguf.checkpoint import GgufCheckpoint
from deepseek.checkpoint.packed.slots import Slot, is_copy
from deepseek.checkpoint.tensor import RawTensor
from deepseek.errors import CheckpointError
from deepseek.families.gguf_names import split_kv_b

_COMPARED_ROWS = 4096


class Source:
    """Reads a checkpoint slot by slot. Holds one weight at a time: the heads of kv_b_proj are cut from one copy."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self._held: tuple[str, RawTensor] | None = None

    def dtype(self, slot: Slot) -> str:
        """Of `tensor(slot)`, without reading weights."""
        half = self._half_in_gguf(slot)
        if half is not None:
            return self._gguf.file.tensors[half].dtype
        dtype = self.checkpoint.dtype(slot.weight)
        return "F32" if slot.part == "k_absorb" else dtype

    def tensor(self, slot: Slot) -> RawTensor:
        """(rows, inputs) in the orientation of the slot; (inputs,) for a vector."""
        half = self._half_in_gguf(slot)
        if half is not None:
            if self._held is None or self._held[0] != half:
                self._held = half, self._gguf.stored(half)
            return self._held[1].entry(slot.head)
        whole = self._weight(slot.weight)
        return whole if slot.part is None else self._cut(whole, slot)

    def check_copies(self) -> None:
        """Raises CheckpointError unless the prediction layers' copies equal the embedding and the head."""
        for copy, original in shared_weights(self.config).items():
            assert is_copy(copy), copy
            ours, theirs = self.checkpoint.raw(copy), self.checkpoint.raw(original)
            if not _equal(ours, theirs):
                raise CheckpointError(
                    f"{self.checkpoint.path}: tensor {copy!r} differs from {original!r}, but MTP layers share "
                    "the model's (V3, section 2.2); remove the MTP layers (num_nextn_predict_layers 0)"
                )

    @property
    def _gguf(self) -> GgufCheckpoint:
        assert isinstance(self.checkpoint, GgufCheckpoint)
        return self.checkpoint

    def _weight(self, name: str) -> RawTensor:
        if self._held is None or self._held[0] != name:
            self._held = None  # two weights never live at once
            self._held = name, self.checkpoint.raw(name)
        return self._held[1]

    def _half_in_gguf(self, slot: Slot) -> str | None:
        """The GGUF tensor that holds the slot in its own orientation: attn_k_b for k_absorb, attn_v_b for v_up."""
        if slot.part not in ("k_absorb", "v_up") or not isinstance(self.checkpoint, GgufCheckpoint):
            return None
        half = split_kv_b(slot.weight)[slot.part == "v_up"]
        return half if half in self.checkpoint.file.tensors else None

    def _cut(self, whole: RawTensor, slot: Slot) -> RawTensor:
        """One head of kv_b_proj: its key rows, those transposed, or its value rows."""
        mla = self.config.mla
        assert mla is not None
        start = slot.head * (mla.qk_nope_head_dim + mla.v_head_dim)
        middle, stop = start + mla.qk_nope_head_dim, start + mla.qk_nope_head_dim + mla.v_head_dim
        if whole.scale is not None:  # blocks of FP8 scales may reach over heads
            whole = self._decoded(whole)
        cut = whole.slice_first(middle, stop) if slot.part == "v_up" else whole.slice_first(start, middle)
        if slot.part != "k_absorb":
            return cut
        return from_float32(np.ascontiguousarray(to_float32(cut).T), "F32")

    def _decoded(self, whole: RawTensor) -> RawTensor:
        assert self._held is not None
        decoded = from_float32(to_float32(whole), "F32")
        self._held = self._held[0], decoded
        return decoded


def _equal(ours: RawTensor, theirs: RawTensor) -> bool:
    if ours.dtype == theirs.dtype and ours.scale is None and theirs.scale is None:
        return np.array_equal(ours.data, theirs.data)
    rows = [slice(at, at + _COMPARED_ROWS) for at in range(0, ours.shape[0], _COMPARED_ROWS)]
    return all(
        np.array_equal(
            to_float32(ours.slice_first(part.start, min(part.stop, ours.shape[0]))),
            to_float32(theirs.slice_first(part.start, min(part.stop, ours.shape[0]))),
        )
        for part in rows
    )
