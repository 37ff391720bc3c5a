"""The sparse indexer of V3.2 as rows of a plan: what `models.indexer` says in PyTorch, said in kernels.

Its products are made beside those of the queries; then keys go into the cache, rows are scored and their tokens chosen,
each before the team meets. Attention reads the choice from the array that all layers share (`kernels.latent`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepseek.engine.plan_builder import Codes, CodesKind, Floats, Matrix
from deepseek.kernels import indexer as op
from deepseek.kernels import latent as latent_op
from deepseek.kernels.attention_store import BLOCK
from deepseek.kernels.latent import LatentCache
from deepseek.kernels.plan import ALWAYS, NEVER

if TYPE_CHECKING:
    from deepseek.engine.decoder_plan import DecoderPlan

_KEY_NORM_EPS = 1e-6
Source = Callable[[Matrix], Mapping[CodesKind, Codes] | Floats]


@dataclass(frozen=True)
class IndexerMatrices:
    """queries reads the queries' latent, keys and weights the layer's normed input."""

    queries: Matrix
    keys: Matrix
    weights: Matrix


class IndexerRooms:
    """Buffers that the indexers of all layers share, and their part of the shared array."""

    def __init__(self, plan: "DecoderPlan", shared: NDArray[np.int64]) -> None:
        config, builder = plan.config, plan.builder
        assert config.indexer is not None
        sizes, cache = config.indexer, LatentCache.of(config)
        tokens = plan.tables.block_tables.shape[1] * BLOCK
        self.plan, self.builder = plan, builder
        self.queries = builder.floats(sizes.index_n_heads * sizes.index_head_dim)
        self.keys, self.weights = builder.floats(sizes.index_head_dim), builder.floats(sizes.index_n_heads)
        self.scores = builder.floats(op.scores_of(tokens), min(builder.rows, op.FEW_ROWS))
        self.scratch_bytes = op.index_scratch_bytes(sizes.index_n_heads, cache.index_width, self.scores.stride // 4)
        self.scratch = builder.scratch(self.scratch_bytes)
        chosen = builder.memory.zeros(builder.rows * tokens // BLOCK, "int32")
        values = {
            latent_op.CHOSEN: int(chosen.ctypes.data),
            latent_op.CHOSEN_STRIDE: 4 * tokens // BLOCK,
            latent_op.INDEX_HEADS: sizes.index_n_heads,
            latent_op.INDEX_DIM: sizes.index_head_dim,
            latent_op.INDEX_WIDTH: cache.index_width,
            latent_op.INDEX_AT: cache.index_at,
            latent_op.INDEX_TOPK: sizes.index_topk,
        }
        shared[list(values)] = list(values.values())

    def matrices(self, at: str) -> IndexerMatrices:
        names = ("wq_b", "wk", "weights_proj")
        return IndexerMatrices(*(self.builder.matrix(f"{at}indexer.{name}") for name in names))

    def project(self, matrices: IndexerMatrices, x: Source, compressed: Source) -> None:
        """Queries, keys and head weights of every row; the team does not meet afterwards."""
        for source, matrix, out in (
            (compressed, matrices.queries, self.queries),
            (x, matrices.keys, self.keys),
            (x, matrices.weights, self.weights),
        ):
            self.builder.linear(source(matrix), matrix, out, barrier=NEVER)

    def store(self, at: str, columns: dict[int, int]) -> None:
        """Keys into the cache; the team does not meet afterwards."""
        self.builder.add(op.store_index, self._columns(at, columns), NEVER)

    def choose(self, at: str, columns: dict[int, int]) -> None:
        self.builder.add(op.score_index, self._columns(at, columns), ALWAYS)
        self.builder.add(op.choose_index, self._columns(at, columns), ALWAYS)

    def _columns(self, at: str, columns: dict[int, int]) -> dict[int, int]:
        vector = self.builder.vector
        own = {
            op.QUERIES: self.queries.address,
            op.QUERY_STRIDE: self.queries.stride,
            op.KEYS: self.keys.address,
            op.KEY_STRIDE: self.keys.stride,
            op.WEIGHTS: self.weights.address,
            op.WEIGHT_STRIDE: self.weights.stride,
            op.NORM: vector(at + "indexer.k_norm.weight"),
            op.NORM_BIAS: vector(at + "indexer.k_norm.bias"),
            op.EPSILON: self.builder.memory.number(_KEY_NORM_EPS),
            op.SCORES: self.scores.address,
            op.SCORES_STRIDE: self.scores.stride,
            op.SCRATCH: self.scratch,
            op.SCRATCH_BYTES: self.scratch_bytes,
        }
        return {latent_op.SHARED: columns[latent_op.SHARED], latent_op.CACHE_AT: columns[latent_op.CACHE_AT]} | own
