"""The packed store: a checkpoint's weights in the layout that kernels read, in one file mapped into memory.

A store is a cache: it can be deleted and is made again. `format` is the file, `slots` what it holds in which order,
`choose` in which packing, `source` where the numbers come from, `convert` how they become the layout, `writer`,
`reader` and `cache` the three ways to it. The layout itself is `deepseek.packing`.
"""

from deepseek.checkpoint.packed.cache import ensure_packed, store_path, stores_of
from deepseek.checkpoint.packed.format import PackedTensor
from deepseek.checkpoint.packed.reader import PackedStore, open_store
from deepseek.checkpoint.packed.verify import verify_store
from deepseek.checkpoint.packed.writer import write_store

__all__ = [
    "PackedStore",
    "PackedTensor",
    "ensure_packed",
    "open_store",
    "store_path",
    "stores_of",
    "verify_store",
    "write_store",
]
