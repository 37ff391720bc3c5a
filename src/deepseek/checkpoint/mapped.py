"""Pages of mapped files: whoever reads a file once, from beginning to end, need not keep all of it resident."""

import mmap

import numpy as np

from deepseek.checkpoint.tensor import Bytes


def release_pages(data: Bytes) -> None:
    """Take the pages of a view of a mapped file out of this process; the next access maps them again.

    Only whole pages, and only where the system can (not on Windows). Does nothing for arrays in memory.
    """
    mapped = _file_behind(data)
    if mapped is None or not hasattr(mapped, "madvise") or not data.size:
        return
    start = data.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (start + data.size) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if length > 0:
        mapped.madvise(mmap.MADV_DONTNEED, first, length)


def _file_behind(data: Bytes) -> mmap.mmap | None:
    base: object = data
    while isinstance(base, np.ndarray):
        base = base.base
    base = base.obj if isinstance(base, memoryview) else base
    return base if isinstance(base, mmap.mmap) else None
