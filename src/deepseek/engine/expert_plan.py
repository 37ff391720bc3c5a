"""A mixture-of-experts layer as rows of a plan: what `models.moe` says in PyTorch, said in kernels.

    phase               routed experts                      shared experts
    prepare             norm and quantise                   (the same rows)
    logits              of the router
    route               choice and weights                  gate and up
    group               sort, write segments                quantise
    gather              rows to the order of experts
    gate and up         of active experts                   down, added to x
    quantise
    down                a row of outputs a place
    combine             added to x in the order of choice

The team meets after each phase. Shared experts run beside the routed ones, so that no thread waits while one sorts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepseek.config import ModelConfig, MoeConfig
from deepseek.engine.plan_builder import Codes, CodesKind, Floats, Matrix, PlanBuilder
from deepseek.engine.routing_record import RoutingRecord
from deepseek.errors import CheckpointError
from deepseek.families.weights import CORRECTION_BIAS
from deepseek.kernels import experts as experts_op
from deepseek.kernels import routing as route_op
from deepseek.kernels.linear import ADD, GATED, SEGMENT_FIELDS, STORE
from deepseek.kernels.plan import NEVER, WHEN_SHARED

if TYPE_CHECKING:
    from deepseek.engine.decoder_plan import DecoderPlan

Rows = Mapping[CodesKind, Codes] | Floats


@dataclass(frozen=True)
class Expert:
    """The three matrices of one."""

    gate: Matrix
    up: Matrix
    down: Matrix


@dataclass(frozen=True)
class ExpertClass:
    """Experts of a layer that have the same packings. like: one of them; memory: see `kernels.experts`."""

    like: Expert
    gathered: Rows
    inner: Floats
    inner_rows: Rows
    memory: NDArray[np.int64]

    @property
    def address(self) -> int:
        return int(self.memory.ctypes.data)


class ExpertRooms:
    """What all expert layers of a plan share.

    tables: of each layer its experts (experts, EXPERT_FIELDS), see `kernels.experts`; an expert is swapped by changing
    its row between two steps. record: what the layers write to while it is on.
    """

    def __init__(self, builder: PlanBuilder, config: ModelConfig, record: RoutingRecord | None = None) -> None:
        assert config.moe is not None
        self.builder = builder
        self.moe: MoeConfig = config.moe
        self.record = record
        experts = self.moe.n_routed_experts
        self.rows = builder.rows * self.moe.num_experts_per_tok
        self.logits = builder.floats(experts)
        self.outputs = builder.floats(config.hidden_size, self.rows)
        self.ids, self.weights, self.places = (self.room(self.rows, kind) for kind in ("int32", "float32", "int32"))
        self.route_scratch = builder.scratch(route_op.route_scratch(experts))
        self.group_scratch = self.room(experts_op.group_scratch(experts), "uint8")
        self.scale = builder.memory.number(self.moe.routed_scaling_factor)
        self.tables: dict[int, NDArray[np.int64]] = {}
        self._floats: dict[tuple[str, int], Floats] = {}
        self._rooms: dict[tuple[str, int], int] = {}
        if record:
            for array in (record.ids, record.weights, record.totals, record.at):
                builder.memory.keep(array)

    def room(self, count: int, dtype: str) -> int:
        return int(self.builder.memory.zeros(count, dtype).ctypes.data)

    def floats(self, use: str, number: int, columns: int) -> Floats:
        """A buffer of class `number`, the same in all layers."""
        if (use, number) not in self._floats:
            self._floats[use, number] = self.builder.floats(columns, self.rows)
        return self._floats[use, number]

    def class_room(self, use: str, number: int, count: int, dtype: str) -> int:
        if (use, number) not in self._rooms:
            self._rooms[use, number] = self.room(count, dtype)
        return self._rooms[use, number]


def emit_experts(plan: "DecoderPlan", layer: int) -> None:
    """x += routed experts + shared experts, of norm(x)."""
    if plan.expert_rooms is None:
        plan.expert_rooms = ExpertRooms(plan.builder, plan.config, plan.routing_record)
    _ExpertLayer(plan, plan.expert_rooms, layer).emit()


class _ExpertLayer:
    """The emission of one layer, phase by phase; of the operations of a phase only the last has a barrier."""

    def __init__(self, plan: "DecoderPlan", rooms: ExpertRooms, layer: int) -> None:
        self.plan, self.rooms, self.layer = plan, rooms, layer
        self.builder, self.moe = plan.builder, rooms.moe
        self.at = f"model.layers.{layer}."
        self.experts = [self._expert(f"mlp.experts.{number}.") for number in range(self.moe.n_routed_experts)]
        self.shared = self._expert("mlp.shared_experts.") if self.moe.n_shared_experts else None
        self.kinds = {_kind(expert): expert for expert in self.experts}
        self.normed = plan.shared("normed", plan.config.hidden_size)

    def emit(self) -> None:
        codes = self._prepare()
        memory = self.builder.memory.zeros(len(self.kinds) * experts_op.CLASS_FIELDS, "int64")
        classes = [
            self._class(number, like, codes, of_class)
            for number, (like, of_class) in enumerate(
                zip(self.kinds.values(), memory.reshape(len(self.kinds), -1), strict=True)
            )
        ]
        shared_inner = self._route(codes)
        shared_codes = self._group(classes, shared_inner)
        self._gather(classes)
        for one in classes:
            self._linear(one, one.gathered, one.like.gate, one.inner, second=one.like.up)
        if self.shared and shared_inner:
            self.builder.linear(shared_codes or shared_inner, self.shared.down, self.plan.x, mode=ADD, barrier=NEVER)
        self.builder.barrier()
        for number, one in enumerate(classes):
            self._quantise_inner(number, one)
        for one in classes:
            self._linear(one, one.inner_rows, one.like.down, self.rooms.outputs)
        self.builder.barrier()
        self._combine()

    def _expert(self, at: str) -> Expert:
        """Raises CheckpointError if gate and up, which one operation reads side by side, are not packed alike."""
        gate, up, down = (self.builder.matrix(f"{self.at}{at}{name}_proj") for name in ("gate", "up", "down"))
        if gate.packing != up.packing:
            raise CheckpointError(
                f"{self.at}{at}up_proj.weight is {up.packing.name}, its gate_proj {gate.packing.name}: "
                "take a file where both have one type, or --quantize bf16"
            )
        return Expert(gate, up, down)

    def _prepare(self) -> Mapping[CodesKind, Codes]:
        gates = [expert.gate for expert in (*self.kinds.values(), *([self.shared] if self.shared else []))]
        norm = self.builder.vector(self.at + "post_attention_layernorm.weight")
        epsilon = self.plan.config.rms_norm_eps
        return self.builder.prepare(self.plan.x, *gates, norm=norm, epsilon=epsilon, normed=self.normed)

    def _class(
        self, number: int, like: Expert, codes: Mapping[CodesKind, Codes], memory: NDArray[np.int64]
    ) -> ExpertClass:
        """Make or find the buffers of a class, and describe them to the kernels."""
        builder, rooms, op = self.builder, self.rooms, experts_op
        rows, segments = rooms.rows, SEGMENT_FIELDS * self.moe.n_routed_experts
        inner = rooms.floats("inner", number, like.gate.rows)
        memory[op.GATE_UP] = rooms.class_room("gate_up", number, segments, "int64")
        memory[op.DOWN] = rooms.class_room("down", number, segments, "int64")
        memory[op.ORIGINS] = rooms.class_room("origins", number, rows, "int32")
        memory[op.H_STRIDE], memory[op.Y_STRIDE] = inner.stride, rooms.outputs.stride
        gathered: Rows
        if like.gate.packing.is_integer:
            kind = CodesKind.of(like.gate)
            source, target = codes[kind], builder.codes(kind, f"gathered{number}", rows)
            gathered = {kind: target}
            memory[op.SOURCE : op.SOURCE_PRIVATE + 1] = source.codes, source.stride, source.private
            memory[op.FACTORS], memory[op.STARTS] = source.factors, source.starts
            memory[op.GROUP_STRIDE], memory[op.PRIVATE_GROUPS] = source.group_stride, source.private_groups
            memory[op.GATHERED] = target.codes
            memory[op.GATHERED_FACTORS], memory[op.GATHERED_STARTS] = target.factors, target.starts
        else:
            gathered = rooms.floats("gathered", number, like.gate.inputs)
            memory[op.SOURCE : op.SOURCE_STRIDE + 1] = self.normed.address, self.normed.stride
            memory[op.GATHERED] = gathered.address
        inner_rows: Rows = inner
        memory[op.H_CODES_STRIDE] = inner.stride
        if like.down.packing.is_integer:
            kind = CodesKind.of(like.down)
            quantised = builder.codes(kind, f"inner{number}", rows)
            inner_rows = {kind: quantised}
            memory[op.H_CODES_STRIDE], memory[op.H_GROUP_STRIDE] = quantised.stride, quantised.group_stride
        return ExpertClass(like, gathered, inner, inner_rows, memory)

    def _route(self, codes: Mapping[CodesKind, Codes]) -> Floats | None:
        """The router, and beside its choice the inner values of the shared experts, which are returned."""
        builder, rooms = self.builder, self.rooms
        builder.linear(self.normed, builder.matrix(self.at + "mlp.gate"), rooms.logits)
        builder.add(route_op.route, self._route_columns(), NEVER)
        inner = None
        if self.shared:
            gate, up = self.shared.gate, self.shared.up
            inner = self.plan.shared("shared_inner", gate.rows)
            builder.linear(codes if gate.packing.is_integer else self.normed, gate, inner, mode=GATED, second=up)
        builder.barrier()
        return inner

    def _route_columns(self) -> dict[int, int]:
        op, rooms, moe = route_op, self.rooms, self.moe
        columns = {
            op.LOGITS: rooms.logits.address, op.LOGITS_STRIDE: rooms.logits.stride,
            op.EXPERTS: moe.n_routed_experts, op.TOP_K: moe.num_experts_per_tok,
            op.SCORING: op.SCORINGS[moe.scoring_func], op.BIAS: self.builder.vector(self.at + CORRECTION_BIAS),
            op.GROUPS: moe.n_group, op.TOP_GROUPS: moe.topk_group,
            op.BEST_OF_GROUP: 2 if moe.topk_method == "noaux_tc" else 1,
            op.NORMED: int(moe.norm_topk_prob), op.SCALE: rooms.scale,
            op.IDS: rooms.ids, op.WEIGHTS: rooms.weights, op.SCRATCH: rooms.route_scratch,
        }  # fmt: skip
        record = rooms.record
        if record and self.layer in record.layers:
            place = record.layers.index(self.layer)
            columns |= {
                op.RECORD_IDS: int(record.ids[place].ctypes.data),
                op.RECORD_WEIGHTS: int(record.weights[place].ctypes.data),
                op.RECORD_AT: int(record.at.ctypes.data),
                op.RECORD_ROWS: record.ids.shape[1],
            }
        return columns

    def _group(self, classes: list[ExpertClass], shared_inner: Floats | None) -> Mapping[CodesKind, Codes]:
        """Sorting, and beside it the codes of the shared experts' inner values, which are returned."""
        rooms, op = self.rooms, experts_op
        columns = {
            op.IDS: rooms.ids, op.TOP_K: self.moe.num_experts_per_tok, op.EXPERTS: self.moe.n_routed_experts,
            op.TABLE: int(self._table().ctypes.data),
            op.CLASSES: classes[0].address, op.CLASS_COUNT: len(classes),
            op.PLACES: rooms.places, op.SCRATCH: rooms.group_scratch,
        }  # fmt: skip
        record = rooms.record
        if record and self.layer in record.layers:
            place = record.layers.index(self.layer)
            columns |= {
                op.TOTALS: int(record.totals[place].ctypes.data),
                op.RECORD_AT: int(record.at.ctypes.data),
                op.RECORD_ENDS: int(place + 1 == len(record.layers)),
            }
        self.builder.add(op.group, columns, NEVER)
        codes: Mapping[CodesKind, Codes] = {}
        if self.shared and shared_inner:
            codes = self.builder.prepare(shared_inner, self.shared.down, use="shared_inner")
        self.builder.barrier()
        return codes

    def _table(self) -> NDArray[np.int64]:
        """The experts of this layer, see `kernels.experts`."""
        numbers = {kind: number for number, kind in enumerate(self.kinds)}
        table = self.builder.memory.zeros(len(self.experts) * experts_op.EXPERT_FIELDS, "int64")
        rows = table.reshape(len(self.experts), -1)
        for row, one in zip(rows, self.experts, strict=True):
            row[:] = one.gate.address, one.up.address, one.down.address, numbers[_kind(one)]
        self.rooms.tables[self.layer] = rows
        return rows

    def _gather(self, classes: list[ExpertClass]) -> None:
        for one in classes:
            meets = WHEN_SHARED if one is classes[-1] else NEVER
            self.builder.add(experts_op.gather, {experts_op.GATHER_CLASS: one.address}, meets)

    def _quantise_inner(self, number: int, one: ExpertClass) -> None:
        slot = (one.address - int(self.builder.state.ctypes.data)) // 8  # ROWS of the class, seen from the step's state
        self.builder.prepare(one.inner, one.like.down, rows_slot=slot, use=f"inner{number}", rows=self.rooms.rows)

    def _linear(self, one: ExpertClass, x: Rows, matrix: Matrix, out: Floats, second: Matrix | None = None) -> None:
        """Over the class's active experts: gate and up where there is a second matrix, down otherwise."""
        which = experts_op.GATE_UP if second else experts_op.DOWN
        self.builder.linear(
            x, matrix, out, mode=GATED if second else STORE, second=second, segments_address=int(one.memory[which]),
            segment_count=one.address + 8 * experts_op.ACTIVE, barrier=NEVER,
        )  # fmt: skip

    def _combine(self) -> None:
        op, rooms, x = experts_op, self.rooms, self.plan.x
        columns = {
            op.COMBINE_X: x.address, op.COMBINE_X_STRIDE: x.stride, op.COMBINE_COLUMNS: x.columns,
            op.COMBINE_TOP_K: self.moe.num_experts_per_tok, op.COMBINE_WEIGHTS: rooms.weights,
            op.COMBINE_PLACES: rooms.places,
            op.COMBINE_Y: rooms.outputs.address, op.COMBINE_Y_STRIDE: rooms.outputs.stride,
        }  # fmt: skip
        self.builder.add(op.combine, columns)


def _kind(expert: Expert) -> tuple[str, str]:
    return expert.gate.packing.name, expert.down.packing.name
