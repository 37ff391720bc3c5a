"""Prediction layers as rows of a plan: what `models.decoder.PredictionLayer` says in PyTorch, said in kernels.

Entry i of a layer joins the embedding of a later token with the final hidden state of token i (of the layer before,
for every layer but the first), runs a decoder layer over its own KV at position i, and reads the model's head.
The hidden states come from a cache beside that of the KV: entries are often computed long after their tokens.
"""

from typing import TYPE_CHECKING

import numpy as np

from deepseek.config import ModelConfig
from deepseek.engine.plan_builder import Floats, Memory
from deepseek.engine.step_tables import StepTables
from deepseek.kernels import latent as latent_op
from deepseek.kernels import rows as rows_op
from deepseek.kernels.attention import BLOCK
from deepseek.kernels.latent import whole_vectors

if TYPE_CHECKING:
    from deepseek.engine.decoder_plan import DecoderPlan


def hidden_cache_bytes(config: ModelConfig) -> int:
    """Hidden states of one block of tokens, in halves."""
    return 2 * BLOCK * whole_vectors(config.hidden_size)


class HiddenStates:
    """The hidden states of every cached token after the final norm, in the KV cache's blocks. rows: of a step."""

    def __init__(self, memory: Memory, config: ModelConfig, tables: StepTables, *, n_blocks: int, rows: int) -> None:
        self._config = config
        self._tables = tables
        self._pool = memory.zeros(n_blocks * hidden_cache_bytes(config), "uint8").reshape(n_blocks, -1)
        self._rows = memory.zeros(rows, "int32")

    def emit_store(self, plan: "DecoderPlan") -> None:
        """x of every row is normed, and kept. By the kernel that keeps latents: norm, then halves."""
        builder, config, tables, op = plan.builder, plan.config, plan.tables, latent_op
        array = np.zeros(op.SHARED_SLOTS, np.int64)
        array[op.RANK] = config.hidden_size
        array[op.WIDTH] = whole_vectors(config.hidden_size)
        array[op.POOL], array[op.POOL_BLOCK] = self._pool.ctypes.data, hidden_cache_bytes(config)
        array[op.TABLES], array[op.TABLE_STRIDE] = tables.block_tables.ctypes.data, tables.block_tables.strides[0]
        array[op.POSITIONS], array[op.CHUNKS] = tables.positions.ctypes.data, tables.chunk_of.ctypes.data
        array[op.EPSILON] = builder.memory.number(config.rms_norm_eps)
        builder.add(
            op.store_latent,
            {
                op.SHARED: builder.memory.keep(array),
                op.LATENTS: plan.x.address,
                op.LATENT_STRIDE: plan.x.stride,
                op.NORM: builder.vector("model.norm.weight"),
            },
        )

    def choose_rows(self, count: int) -> None:
        """Those that belong to the first `count` rows of the step in the tables."""
        tables = self._tables
        places, slots = np.divmod(tables.positions[:count], BLOCK)
        self._rows[:count] = tables.block_tables[tables.chunk_of[:count], places] * BLOCK + slots

    def emit_load(self, plan: "DecoderPlan", out: Floats) -> None:
        """out = the chosen rows. They are looked up like embeddings."""
        config, op = plan.config, rows_op
        plan.builder.add(
            op.embed,
            {
                op.EMBED_TABLE: int(self._pool.ctypes.data),
                op.EMBED_ROW_BYTES: 2 * whole_vectors(config.hidden_size),
                op.EMBED_TYPE: op.ROW_TYPES["f16"],
                op.EMBED_INPUTS: config.hidden_size,
                op.EMBED_TOKENS: int(self._rows.ctypes.data),
                op.EMBED_OUT: out.address,
                op.EMBED_OUT_STRIDE: out.stride,
            },
        )

    def copy_block(self, source: int, target: int) -> None:
        self._pool[target] = self._pool[source]


def emit_prediction_layers(plan: "DecoderPlan", states: HiddenStates) -> list[int]:
    """One after the other; returns the number of operations before each. Before each the tables hold its tokens."""
    config = plan.config
    begins = []
    for layer in range(config.num_hidden_layers, config.num_hidden_layers + config.num_nextn_predict_layers):
        begins.append(plan.builder.operations)
        hidden = plan.shared("hidden", config.hidden_size)
        if layer == config.num_hidden_layers:
            states.emit_load(plan, hidden)
        _emit(plan, layer, hidden)
    return begins


def _emit(plan: "DecoderPlan", layer: int, hidden: Floats) -> None:
    """logits of the wanted rows; hidden, the state of each row before, becomes that after this layer for the next."""
    builder, size, epsilon = plan.builder, plan.config.hidden_size, plan.config.rms_norm_eps
    at = f"model.layers.{layer}."
    joined = plan.shared("joined", 2 * size)
    second_half = Floats(joined.address + 4 * size, size, joined.stride, joined.array)
    plan.embed()
    builder.prepare(plan.x, norm=builder.vector(at + "enorm.weight"), epsilon=epsilon, normed=joined)
    builder.prepare(hidden, norm=builder.vector(at + "hnorm.weight"), epsilon=epsilon, normed=second_half)
    projection = builder.matrix(at + "eh_proj")
    builder.linear(builder.prepare(joined, projection) or joined, projection, plan.x)
    plan.layer(layer)
    norm = at + "shared_head.norm.weight"
    if layer + 1 < plan.config.num_hidden_layers + plan.config.num_nextn_predict_layers:
        builder.prepare(plan.x, norm=builder.vector(norm), epsilon=epsilon, normed=hidden)
    plan.head(norm)
