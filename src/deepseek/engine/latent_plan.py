"""Multi-head latent attention as rows of a plan: what `models.latent_attention` says in PyTorch, said in kernels.

    phase               absorbed rows (generated tokens)        expanded rows (prompts)
    project             queries, latents                        (the same product)
    store               into the cache; queries turned          (the same)
    absorb              queries to latents, a head a segment
    attend              over cached latents                     keys and values made, a chunk and head a unit
    values              from mixed latents, a head a segment
    output              added to x                              (the same product)

The team meets after each phase. Absorbed rows come first in a step, see `kernels.latent`. A sparse indexer (V3.2)
chooses the tokens to attend to after the queries are absorbed, see `index_plan`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepseek.engine.index_plan import IndexerRooms, Source
from deepseek.engine.plan_builder import Codes, CodesKind, Floats, Matrix
from deepseek.families.rotation import softmax_mscale
from deepseek.kernels import latent as latent_op
from deepseek.kernels import latent_absorbed as absorbed_op
from deepseek.kernels import latent_expanded as expanded_op
from deepseek.kernels.latent import LatentCache, whole_vectors
from deepseek.kernels.plan import ALWAYS, NEVER, STATE_ABSORBED_TILES

if TYPE_CHECKING:
    from deepseek.engine.decoder_plan import DecoderPlan

UNITS_A_THREAD = 2  # of absorbed attention, for one token, so that a thread that is held up costs less than half


@dataclass(frozen=True)
class HeadRows:
    """Rows of a buffer, one for each (row of the step, head), as `kernels.latent.hand_over` writes them."""

    columns: dict[int, int]
    by_row: Mapping[CodesKind, Codes] | Floats  # the same, a row of the step at a time
    offsets: tuple[int, int]  # bytes from one head to the next: of x, of factors and starts


class LatentRooms:
    """What all layers of a plan share: sizes, tables and buffers."""

    def __init__(self, plan: "DecoderPlan") -> None:
        builder, config = plan.builder, plan.config
        assert config.mla is not None
        self.plan, self.builder, self.mla = plan, builder, config.mla
        self.heads = config.num_attention_heads
        array = self._shared_array()
        self.indexer = None if config.indexer is None else IndexerRooms(plan, array)
        self.shared = builder.memory.keep(array)
        mla = self.mla
        self.absorbed = self._head_floats(mla.kv_lora_rank)
        self.values = self._head_floats(mla.v_head_dim) if mla.v_head_dim % 16 else None
        spare = 4 * (mla.qk_nope_head_dim + 128)
        self.store_scratch, self.store_scratch_bytes = builder.scratch(spare), spare
        self.absorbed_scratch_bytes = absorbed_op.absorbed_scratch_bytes(int(array[latent_op.WIDTH]))
        self.absorbed_scratch = builder.scratch(self.absorbed_scratch_bytes)
        *parts, self.expanded_scratch_bytes = expanded_op.scratch_parts(
            rank=mla.kv_lora_rank, nope=mla.qk_nope_head_dim, rope=mla.qk_rope_head_dim, value=mla.v_head_dim,
            rows=builder.rows,
        )  # fmt: skip
        self.expanded_parts = builder.memory.keep(np.array(parts, np.int64))
        self.expanded_scratch = builder.scratch(self.expanded_scratch_bytes)

    def _shared_array(self) -> NDArray[np.int64]:
        op, plan, mla = latent_op, self.plan, self.mla
        config, tables, memory = plan.config, plan.tables, plan.builder.memory
        values = {
            op.HEADS: self.heads,
            op.RANK: mla.kv_lora_rank,
            op.NOPE: mla.qk_nope_head_dim,
            op.ROPE: mla.qk_rope_head_dim,
            op.VALUE: mla.v_head_dim,
            op.WIDTH: LatentCache.of(config, plan.pool.code_bytes).width,
            op.CODE_BYTES: plan.pool.code_bytes,
            op.POOL: plan.pool.address,
            op.POOL_BLOCK: plan.pool.block_bytes,
            op.TABLES: int(tables.block_tables.ctypes.data),
            op.TABLE_STRIDE: tables.block_tables.strides[0],
            op.POSITIONS: int(tables.positions.ctypes.data),
            op.CHUNKS: int(tables.chunk_of.ctypes.data),
            op.TILES: int(tables.expanded.ctypes.data),
            op.COSINES: plan.cosines,
            op.SINES: plan.sines,
            op.INTERLEAVED: int(config.rope.interleaved),
            op.SCALE: memory.number(mla.qk_head_dim**-0.5 * softmax_mscale(config.rope)),
            op.EPSILON: memory.number(mla.latent_norm_eps),
            op.HEADS_A_UNIT: self._heads_a_unit(),
        }
        array = np.zeros(op.SHARED_SLOTS, np.int64)
        array[list(values)] = list(values.values())
        return array

    def _heads_a_unit(self) -> int:
        """Heads that share what absorbed attention reads of the cache: whole tiles, enough units for all threads."""
        tile, most = latent_op.TILE_HEADS, absorbed_op.MAX_HEADS_A_UNIT
        shared_out = self.heads // (UNITS_A_THREAD * self.builder.threads) // tile * tile
        return min(most, max(tile, shared_out))

    def _head_floats(self, columns: int) -> Floats:
        """A row a token, of it `columns` floats a head, each head in whole vectors."""
        return self.builder.floats(self.heads * whole_vectors(columns))

    def head_rows(self, matrix: Matrix, use: str) -> HeadRows:
        """The buffer in which a head's inputs of such a matrix wait for it."""
        op = latent_op
        if not matrix.packing.is_integer:
            floats = self.plan.shared(use, self.heads * whole_vectors(matrix.inputs))
            step = 4 * whole_vectors(matrix.inputs)
            # Rows of heads follow each other without the padding that ends a token's row.
            dense = replace(floats, stride=self.heads * step)
            return HeadRows({op.FLOATS: floats.address, op.FLOATS_STRIDE: step}, dense, (step, 0))
        kind = CodesKind.of(matrix)
        codes = self.builder.codes(kind, use, self.builder.rows * self.heads)
        columns = {
            op.CODES: codes.codes,
            op.CODES_STRIDE: codes.stride,
            op.FACTORS: codes.factors,
            op.STARTS: codes.starts,
            op.GROUP_STRIDE: codes.group_stride,
            op.GROUP: kind.group,
            op.GROUPS: kind.inputs // kind.group,
            op.ZERO_POINT: kind.zero_point,
            op.LOW: codes.low,
            op.LOW_GROUPS: codes.low_groups,
        }
        by_row = replace(codes, stride=codes.stride * self.heads, group_stride=codes.group_stride * self.heads)
        return HeadRows(columns, {kind: by_row}, (codes.stride, codes.group_stride))

    def head_products(self, rows: HeadRows, matrix: Matrix, out: Floats, step: int, barrier: int) -> None:
        """out of each head = its rows @ its matrix.T, for the absorbed rows. step: bytes from head to head in out."""
        x_step, group_step = rows.offsets
        segments = np.array(
            [
                [matrix.address + head * matrix.step, 0, head * x_step, head * group_step, head * step, -1]
                for head in range(self.heads)
            ],
            np.int64,
        )
        self.builder.linear(
            rows.by_row, matrix, out, rows_slot=STATE_ABSORBED_TILES, segments=segments, barrier=barrier
        )


def emit_latent_attention(plan: "DecoderPlan", layer: int) -> None:
    """x += attention(norm(x)) of one layer."""
    if plan.latent_rooms is None:
        plan.latent_rooms = LatentRooms(plan)
    rooms = plan.latent_rooms
    at = f"model.layers.{layer}.self_attn."
    queries, latents = _project(rooms, layer, at)
    mixed = plan.shared("mixed", plan.builder.matrix(at + "o_proj").inputs)
    cache_at = plan.pool.offsets[layer]
    _attend(rooms, at, cache_at, queries, latents, mixed)
    plan.project(mixed, layer)


def _project(rooms: LatentRooms, layer: int, at: str) -> tuple[Floats, Floats]:
    """Queries and latents (with the key to be rotated) of every row."""
    plan, builder, config, mla = rooms.plan, rooms.builder, rooms.plan.config, rooms.mla
    direct = mla.q_lora_rank is None
    first, latent = builder.matrix(at + ("q_proj" if direct else "q_a_proj")), builder.matrix(at + "kv_a_proj_with_mqa")
    index = None if rooms.indexer is None else rooms.indexer.matrices(at)
    readers: tuple[Matrix, ...] = (first, latent) if index is None else (first, latent, index.keys, index.weights)
    normed = plan.normed_floats(*readers)
    x = _source(normed, builder.prepare(
        plan.x, *readers, norm=builder.vector(f"model.layers.{layer}.input_layernorm.weight"),
        epsilon=config.rms_norm_eps, normed=normed,
    ))  # fmt: skip
    compressed, latents = plan.shared("q", first.rows), plan.shared("latents", latent.rows)
    builder.linear(x(first), first, compressed, barrier=NEVER)
    builder.linear(x(latent), latent, latents)
    if direct:
        return compressed, latents
    second = builder.matrix(at + "q_b_proj")
    readers = (second,) if index is None else (second, index.queries)
    floats = any(not matrix.packing.is_integer for matrix in readers)
    normed = plan.shared("normed queries", second.inputs) if floats else None
    queries = plan.shared("expanded queries", second.rows)
    latent_queries = _source(normed, builder.prepare(
        compressed, *readers, norm=builder.vector(at + "q_a_layernorm.weight"), epsilon=mla.latent_norm_eps,
        normed=normed, use="queries",
    ))  # fmt: skip
    if rooms.indexer is not None and index is not None:
        rooms.indexer.project(index, x, latent_queries)
    builder.linear(latent_queries(second), second, queries)
    return queries, latents


def _source(floats: Floats | None, codes: Mapping[CodesKind, Codes]) -> Source:
    """What a matrix reads of one and the same rows."""

    def source(matrix: Matrix) -> Mapping[CodesKind, Codes] | Floats:
        if matrix.packing.is_integer:
            return codes
        assert floats is not None
        return floats

    return source


def _attend(rooms: LatentRooms, at: str, cache_at: int, queries: Floats, latents: Floats, mixed: Floats) -> None:
    """mixed = the heads' results, by either form."""
    builder, mla, op = rooms.builder, rooms.mla, latent_op
    absorb, key_up, value_up = (builder.matrix(f"{at}{name}.0") for name in ("k_absorb", "k_up", "v_up"))
    common = {
        op.SHARED: rooms.shared,
        op.CACHE_AT: cache_at,
        op.QUERIES: queries.address,
        op.QUERY_STRIDE: queries.stride,
    }
    unrotated = rooms.head_rows(absorb, "unrotated")
    if rooms.indexer is not None:
        rooms.indexer.store(at, common)
    builder.add(
        op.store_latent,
        common
        | unrotated.columns
        | {
            op.LATENTS: latents.address,
            op.LATENT_STRIDE: latents.stride,
            op.NORM: builder.vector(at + "kv_a_layernorm.weight"),
            op.SCRATCH: rooms.store_scratch,
            op.SCRATCH_BYTES: rooms.store_scratch_bytes,
        },
    )
    head_step = 4 * whole_vectors(mla.kv_lora_rank)
    rooms.head_products(unrotated, absorb, rooms.absorbed, head_step, ALWAYS if rooms.indexer is None else NEVER)
    if rooms.indexer is not None:
        rooms.indexer.choose(at, common)
    _expanded(rooms, common, key_up, value_up, mixed)
    waiting = rooms.head_rows(value_up, "mixed latents")
    builder.add(
        absorbed_op.attend_absorbed,
        common
        | waiting.columns
        | {
            absorbed_op.ABSORBED: rooms.absorbed.address,
            absorbed_op.ABSORBED_STRIDE: rooms.absorbed.stride,
            absorbed_op.HEAD_STRIDE: head_step,
            op.SCRATCH: rooms.absorbed_scratch,
            op.SCRATCH_BYTES: rooms.absorbed_scratch_bytes,
        },
    )
    _values(rooms, waiting, value_up, mixed)


def _values(rooms: LatentRooms, waiting: HeadRows, value_up: Matrix, mixed: Floats) -> None:
    """Mixed latents to values. Products come in whole vectors; heads of another size are put side by side after it."""
    size = rooms.mla.v_head_dim
    if rooms.values is None:
        rooms.head_products(waiting, value_up, mixed, 4 * size, ALWAYS)
        return
    rooms.head_products(waiting, value_up, rooms.values, 4 * whole_vectors(size), ALWAYS)
    op = absorbed_op
    rooms.builder.add(
        op.join_heads,
        {
            latent_op.SHARED: rooms.shared,
            op.PADDED: rooms.values.address,
            op.PADDED_STRIDE: rooms.values.stride,
            op.JOINED: mixed.address,
            op.JOINED_STRIDE: mixed.stride,
        },
    )


def _expanded(rooms: LatentRooms, common: dict[int, int], key_up: Matrix, value_up: Matrix, mixed: Floats) -> None:
    builder, op = rooms.builder, expanded_op
    packing, inputs = key_up.packing, key_up.inputs
    assert packing == value_up.packing, f"k_up is {packing.name} but v_up {value_up.packing.name}"
    columns = {
        op.OUT: mixed.address,
        op.OUT_STRIDE: mixed.stride,
        op.KEY_UP: key_up.address,
        op.KEY_STEP: key_up.step,
        op.VALUE_UP: value_up.address,
        op.VALUE_STEP: value_up.step,
        op.BLOCK_BYTES: packing.block_bytes(inputs),
        op.CODES: packing.scale_bytes(inputs),
        op.GROUPS: packing.padded_inputs(inputs) // packing.inputs_a_step,
        op.WIDE: int(builder.wide),
        op.PARTS: rooms.expanded_parts,
        op.SCRATCH: rooms.expanded_scratch,
        op.SCRATCH_BYTES: rooms.expanded_scratch_bytes,
    }
    if packing.is_integer:
        kind = CodesKind.of(key_up)
        columns |= {
            op.GROUP: kind.group,
            op.GROUPS: kind.inputs // kind.group,
            op.SCALE_SHIFT: (packing.group // kind.group).bit_length() - 1,
            op.ZERO_POINT: kind.zero_point,
        }
    builder.add(op.expanded_kernel(packing), common | columns, NEVER)
