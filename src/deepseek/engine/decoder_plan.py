"""The decoder of every family as a plan: what `models.decoder` says in PyTorch, said in kernels.

Embedding, then for each layer x += attention(norm(x)) and x += mlp(norm(x)), final norm and head.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from deepseek.config import ModelConfig
from deepseek.engine.choices import Choices
from deepseek.engine.plan_builder import Floats, Matrix, PlanBuilder
from deepseek.engine.step_tables import StepTables
from deepseek.families.rotation import rotation_table, softmax_mscale
from deepseek.kernels import attention as attention_op
from deepseek.kernels import attention_store as store_op
from deepseek.kernels import rows as rows_op
from deepseek.kernels.attention_store import BLOCK
from deepseek.kernels.linear import ADD, GATED
from deepseek.kernels.plan import ALWAYS, NEVER, STATE_LOGIT_ROWS

if TYPE_CHECKING:
    from deepseek.engine.expert_plan import ExpertRooms
    from deepseek.engine.latent_plan import LatentRooms
    from deepseek.engine.prediction_plan import HiddenStates
    from deepseek.engine.routing_record import RoutingRecord

_VECTOR = 16
CODE_BYTES = 2


@dataclass(frozen=True)
class Pool:
    """The KV cache: block `n` begins at address + n * block_bytes, and layer `l` of it at offsets[l].

    Prediction layers that are run come after the last.
    """

    address: int
    block_bytes: int
    offsets: tuple[int, ...]


def head_width(config: ModelConfig) -> int:
    return -(-config.head_dim // _VECTOR) * _VECTOR


def layer_cache_bytes(config: ModelConfig) -> int:
    """Of one layer in one block of tokens."""
    if config.mla is not None:
        from deepseek.kernels.latent import latent_cache_bytes

        return int(latent_cache_bytes(config))
    return config.num_key_value_heads * store_op.head_bytes(head_width(config), CODE_BYTES)


class DecoderPlan:
    """Emits rows for `config` into `builder`. logits: (rows, vocabulary), filled by a step."""

    def __init__(
        self, builder: PlanBuilder, config: ModelConfig, tables: StepTables, pool: Pool, *, max_model_len: int
    ) -> None:
        self.builder = builder
        self.config = config
        self.tables = tables
        self.pool = pool
        self.max_model_len = max_model_len
        self.x = builder.floats(config.hidden_size)
        self.logits = builder.floats(config.vocab_size, len(tables.logit_rows))
        cosines, sines = rotation_table(config.rope, config.rope_dim, max_model_len)
        self.cosines, self.sines = builder.memory.keep(cosines), builder.memory.keep(sines)
        self._shared: dict[str, Floats] = {}
        self.choices = Choices(builder, rows=len(tables.logit_rows))
        self.expert_rooms: ExpertRooms | None = None
        self.latent_rooms: LatentRooms | None = None
        self.routing_record: RoutingRecord | None = None

    def emit(self, states: "HiddenStates | None" = None) -> None:
        """A step. states: where the final hidden states of its rows are kept; x holds them normed then."""
        self.embed()
        for layer in range(self.config.num_hidden_layers):
            self.layer(layer)
        self.head("model.norm.weight")
        if states is not None:
            states.emit_store(self)
        self.choices.emit(self)

    def shared(self, use: str, columns: int) -> Floats:
        """A buffer that every layer uses again."""
        if use not in self._shared:
            self._shared[use] = self.builder.floats(columns)
        return self._shared[use]

    def embed(self) -> None:
        tensor = self.builder.store.tensors["model.embed_tokens.weight"]
        assert tensor.rows_dtype is not None
        self.builder.add(
            rows_op.embed,
            {
                rows_op.EMBED_TABLE: int(self.builder.store.data.ctypes.data) + tensor.offset,
                rows_op.EMBED_ROW_BYTES: tensor.nbytes // tensor.rows,
                rows_op.EMBED_TYPE: rows_op.ROW_TYPES[tensor.rows_dtype],
                rows_op.EMBED_INPUTS: self.config.hidden_size,
                rows_op.EMBED_TOKENS: int(self.tables.tokens.ctypes.data),
                rows_op.EMBED_OUT: self.x.address,
                rows_op.EMBED_OUT_STRIDE: self.x.stride,
            },
        )

    def layer(self, layer: int) -> None:
        at = f"model.layers.{layer}."
        if self.config.mla is not None:
            from deepseek.engine.latent_plan import emit_latent_attention

            emit_latent_attention(self, layer)
        else:
            self._grouped_attention(layer, at)
        if self.config.is_moe_layer(layer):
            from deepseek.engine.expert_plan import emit_experts

            emit_experts(self, layer)
        else:
            self.mlp(at + "mlp.", at + "post_attention_layernorm.weight")

    def normed_floats(self, *matrices: Matrix) -> Floats | None:
        """A buffer for normed floats, if one of the matrices reads floats."""
        if all(matrix.packing.is_integer for matrix in matrices):
            return None
        return self.shared("normed", self.config.hidden_size)

    def mlp(self, at: str, norm_name: str) -> None:
        """x += down(silu(gate(norm(x))) * up(norm(x)))."""
        builder, config = self.builder, self.config
        gate, up, down = (builder.matrix(f"{at}{name}_proj") for name in ("gate", "up", "down"))
        normed = self.normed_floats(gate)
        codes = builder.prepare(
            self.x, gate, norm=builder.vector(norm_name), epsilon=config.rms_norm_eps, normed=normed
        )
        inner = self.shared("inner", gate.rows)
        builder.linear(normed or codes, gate, inner, mode=GATED, second=up)
        inner_codes = builder.prepare(inner, down)
        builder.linear(inner_codes or inner, down, self.x, mode=ADD)

    def _grouped_attention(self, layer: int, at: str) -> None:
        builder, config = self.builder, self.config
        query, key, value, output = (builder.matrix(f"{at}self_attn.{name}_proj") for name in "qkvo")
        normed = self.normed_floats(query, key, value)
        codes = builder.prepare(
            self.x, query, key, value, norm=builder.vector(at + "input_layernorm.weight"),
            epsilon=config.rms_norm_eps, normed=normed,
        )  # fmt: skip
        queries, keys, values = (
            self.shared(use, matrix.rows) for use, matrix in (("q", query), ("k", key), ("v", value))
        )
        for matrix, out, barrier in ((query, queries, NEVER), (key, keys, NEVER), (value, values, ALWAYS)):
            x = codes if matrix.packing.is_integer else normed
            assert x is not None
            builder.linear(x, matrix, out, barrier=barrier)
        mixed = self.shared("mixed", output.inputs)
        columns = self._attention_columns(layer, at, queries, keys, values, mixed)
        builder.add(store_op.rotate_and_store, columns)
        builder.add(attention_op.attend, columns)
        builder.add(attention_op.join, columns)
        mixed_codes = builder.prepare(mixed, output)
        builder.linear(mixed_codes or mixed, output, self.x, mode=ADD)

    def _attention_columns(
        self, layer: int, at: str, queries: Floats, keys: Floats, values: Floats, mixed: Floats
    ) -> dict[int, int]:
        config, tables, op = self.config, self.tables, store_op
        width, offset = head_width(config), self.pool.offsets[layer]
        scale = config.head_dim**-0.5 * softmax_mscale(config.rope) if config.mla else config.head_dim**-0.5
        return {
            op.QUERIES: queries.address, op.QUERY_STRIDE: queries.stride,
            op.KEYS: keys.address, op.KEY_STRIDE: keys.stride,
            op.VALUES: values.address, op.VALUE_STRIDE: values.stride,
            op.OUT: mixed.address, op.OUT_STRIDE: mixed.stride,
            op.HEADS: config.num_attention_heads, op.KEY_HEADS: config.num_key_value_heads,
            op.HEAD_DIM: config.head_dim, op.WIDTH: width,
            op.POOL: self.pool.address, op.BLOCK_BYTES: self.pool.block_bytes,
            op.CACHE_AT: offset, op.CODE_BYTES: CODE_BYTES,
            op.POSITIONS: int(tables.positions.ctypes.data), op.CHUNKS: int(tables.chunk_of.ctypes.data),
            op.TABLES: int(tables.block_tables.ctypes.data), op.TABLE_STRIDE: tables.block_tables.strides[0],
            op.TILES: int(tables.tiles.ctypes.data), op.WINDOW: config.window_of(layer) or 0,
            op.SCRATCH: self._attention_scratch, op.SCRATCH_STRIDE: attention_op.SCRATCH_BYTES,
            op.COSINES: self.cosines, op.SINES: self.sines,
            op.ROTATED: config.rope_dim, op.INTERLEAVED: int(config.rope.interleaved),
            op.SCALE: self.builder.memory.number(scale),
            op.QUERY_NORM: self.builder.vector(at + "self_attn.q_norm.weight"),
            op.KEY_NORM: self.builder.vector(at + "self_attn.k_norm.weight"),
            op.EPSILON: self.builder.memory.number(config.rms_norm_eps), op.PARTS: self._attention_parts,
        }  # fmt: skip

    @cached_property
    def _attention_scratch(self) -> int:
        return self.builder.scratch(attention_op.SCRATCH_BYTES)

    @cached_property
    def _attention_parts(self) -> int:
        size = attention_op.parts_bytes(
            self.config.num_attention_heads, head_width(self.config), self.max_model_len + 2 * BLOCK
        )
        return int(self.builder.memory.zeros(size, "uint8").ctypes.data)

    def head(self, norm_name: str) -> None:
        """logits = head(norm(x)) of the rows that want them."""
        builder, config = self.builder, self.config
        head = builder.matrix("lm_head")
        normed = None if head.packing.is_integer else self.shared("normed", config.hidden_size)
        codes = builder.prepare(
            self.x, head, norm=builder.vector(norm_name), epsilon=config.rms_norm_eps, normed=normed,
            index=int(self.tables.logit_rows.ctypes.data), rows_slot=STATE_LOGIT_ROWS,
        )  # fmt: skip
        builder.linear(normed or codes, head, self.logits, rows_slot=STATE_LOGIT_ROWS)
