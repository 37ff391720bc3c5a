"""Where every tensor of a store will lie, known before anything is written: sizes follow from shapes and types."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from deepseek.checkpoint.packed.choose import Quantize, RowsType, default_packing, packing_of, rows_type_of
from deepseek.checkpoint.packed.convert import ALIGNMENT, rows_bytes, vector_bytes
from deepseek.checkpoint.packed.format import PAGE, PackedTensor, aligned
from deepseek.checkpoint.packed.slots import Slot, slots_of
from deepseek.checkpoint.packed.source import Source
from deepseek.packing import Packing


@dataclass(frozen=True, slots=True)
class Typed:
    """A slot, the type it is stored in, and the checksum of its bytes where that is known."""

    slot: Slot
    packing: Packing | None = None
    rows_dtype: RowsType | None = None
    crc: int = 0

    def nbytes(self) -> int:
        slot = self.slot
        if self.packing is not None:
            return _matrix_bytes(self.packing, slot.rows, slot.inputs)
        if self.rows_dtype is not None:
            return rows_bytes(slot.rows, slot.inputs, self.rows_dtype)
        return vector_bytes(slot.inputs)


@cache
def _matrix_bytes(packing: Packing, rows: int, inputs: int) -> int:
    return packing.matrix_bytes(rows, inputs)  # a model has thousands of experts and a handful of shapes


def typed_slots(source: Source, quantize: Quantize) -> Iterator[Typed]:
    """What is made of a checkpoint."""
    default = default_packing(source.config)
    for slot in slots_of(source.config):
        if slot.kind == "matrix":
            yield Typed(slot, packing=packing_of(slot, source.dtype(slot), quantize, default))
        elif slot.kind == "rows":
            yield Typed(slot, rows_dtype=rows_type_of(source.dtype(slot), quantize))
        else:
            yield Typed(slot)


def placed(typed: Iterable[Typed], start: int = 0) -> Iterator[tuple[Typed, PackedTensor]]:
    """The one rule by which tensors follow each other; readers check that a file obeys it."""
    for entry in typed:
        slot, nbytes = entry.slot, entry.nbytes()
        start = aligned(start, PAGE if slot.starts_expert else ALIGNMENT)
        yield (
            entry,
            PackedTensor(
                packing=entry.packing,
                rows=slot.rows,
                inputs=slot.inputs,
                offset=start,
                nbytes=nbytes,
                kind=slot.kind,
                rows_dtype=entry.rows_dtype,
                crc=entry.crc,
            ),
        )
        start += nbytes
