"""Reading every byte of a store again."""

import zlib

from deepseek.checkpoint.mapped import release_pages
from deepseek.checkpoint.packed.reader import PackedStore
from deepseek.errors import CheckpointError
from deepseek.progress import Report, silent

_PIECE = 1 << 22


def verify_store(store: PackedStore, *, report: Report = silent) -> None:
    """Raises CheckpointError naming every tensor whose bytes are not those that were written (the first ten)."""
    damaged: list[str] = []
    reached, total = 0, store.data.size
    for name, tensor in store.tensors.items():
        gap = store.data[reached : tensor.offset] if reached else store.data[:0]
        crc, end = 0, tensor.offset + tensor.nbytes
        for start in range(tensor.offset, end, _PIECE):
            crc = zlib.crc32(store.data[start : min(start + _PIECE, end)].data, crc)
            report("verifying tensors", start, total)
        release_pages(store.data[tensor.offset : end])
        if crc != tensor.crc or gap.any():
            damaged.append(name)
        reached = end
    if store.data[reached:].any():
        damaged.append("the zeros at the end")
    report("verifying tensors", total, total)
    if damaged:
        more = f" and {len(damaged) - 10} more" if len(damaged) > 10 else ""
        raise CheckpointError(
            f"{store.path}: damaged: {', '.join(damaged[:10])}{more}; delete it and pack the model again"
        )
