"""One mixture-of-experts layer with random weights, emitted as the engine does and run by itself.

layer = ExpertLayer(moe, rng, hidden=40, packings=["int4-g32"])
x = layer.run(x, threads=2)
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.packed import PackedTensor
from deepseek.config import ModelConfig, MoeConfig, RopeConfig
from deepseek.engine.expert_plan import emit_experts
from deepseek.engine.plan_builder import Floats, PlanBuilder
from deepseek.engine.routing_record import RoutingRecord
from deepseek.kernels.plan import PRIVATE_ROWS, STATE_TOKENS
from deepseek.kernels.team import team_of
from deepseek.packing import Floats as Array
from kernel_plans import Matrix, floats, random_matrix, room

EPSILON = 0.01
AT = "model.layers.0."
THREADS_AT_MOST = 3


def config_of(moe: MoeConfig, hidden: int, **changes: Any) -> ModelConfig:
    values: dict[str, Any] = {
        "family": "deepseek", "vocab_size": 8, "hidden_size": hidden, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 8,
        "rms_norm_eps": EPSILON, "rope": RopeConfig(theta=1e4), "moe": moe, **changes,
    }  # fmt: skip
    return ModelConfig(**values)


class MemoryStore:
    """What a plan needs of a packed store, in memory. Matrices and vectors (float32) by name."""

    def __init__(self, config: ModelConfig, weights: dict[str, Matrix | Array]) -> None:
        self.config = config
        self.tensors: dict[str, PackedTensor] = {}
        raw = {name: one.data if isinstance(one, Matrix) else one.view(np.uint8) for name, one in weights.items()}
        self.data = room((sum(-(-part.size // 64) * 64 for part in raw.values()) + 4096,), np.uint8)
        offset = 0
        for name, one in weights.items():
            part = raw[name]
            self.data[offset : offset + part.size] = part
            shape = (one.rows, one.inputs) if isinstance(one, Matrix) else (1, one.size)
            packing, kind = (one.packing, "matrix") if isinstance(one, Matrix) else (None, "vector")
            self.tensors[name] = PackedTensor(packing, *shape, offset, part.size, kind)
            offset += -(-part.size // 64) * 64

    def address(self, name: str) -> int:
        return int(self.data.ctypes.data) + self.tensors[name].offset


class ExpertLayer:
    """packings: of experts by turns, "gate and up/down" or one for all three. wide: activations in 16 bits."""

    def __init__(
        self, moe: MoeConfig, rng: np.random.Generator, *, hidden: int, packings: list[str], rows: int = 16,
        threads: int = THREADS_AT_MOST, shared: str = "int8-g32", wide: bool = False, record_rows: int = 0,
        bias_mean: float = 0.0, random: Any = random_matrix,
    ) -> None:  # fmt: skip
        self.moe, self.hidden = moe, hidden
        self.config = config_of(moe, hidden)
        self.weights: dict[str, Any] = {
            AT + "post_attention_layernorm.weight": (1 + 0.3 * rng.standard_normal(hidden)).astype(np.float32),
            AT + "mlp.gate.weight": random(rng, "f32", rows=moe.n_routed_experts, inputs=hidden),
        }
        if moe.has_correction_bias:
            bias = bias_mean + 0.3 * rng.standard_normal(moe.n_routed_experts)
            self.weights[AT + "mlp.gate.e_score_correction_bias"] = bias.astype(np.float32)
        for number in range(moe.n_routed_experts):
            packing = packings[number % len(packings)]
            self._add_mlp(f"{AT}mlp.experts.{number}.", packing, moe.moe_intermediate_size, rng, random)
        if moe.n_shared_experts:
            self._add_mlp(f"{AT}mlp.shared_experts.", shared, moe.shared_intermediate_size, rng, random)
        self.store = MemoryStore(self.config, self.weights)
        self.builder = PlanBuilder(self.store, rows=rows, threads=threads, wide=wide)  # type: ignore[arg-type]
        self.record = RoutingRecord.of(self.config, record_rows) if record_rows else None
        self.plan = self._plan()
        emit_experts(self.plan, 0)
        self.job = self.builder.finish()

    def _add_mlp(self, at: str, packing: str, width: int, rng: np.random.Generator, random: Any) -> None:
        outer, _, inner = packing.partition("/")
        for name, kind, rows, inputs in (
            ("gate_proj", outer, width, self.hidden),
            ("up_proj", outer, width, self.hidden),
            ("down_proj", inner or outer, self.hidden, width),
        ):
            self.weights[f"{at}{name}.weight"] = random(rng, kind, rows=rows, inputs=inputs)

    def _plan(self) -> Any:
        """What `emit_experts` takes of a DecoderPlan."""
        buffers: dict[str, Floats] = {}

        def shared(use: str, columns: int) -> Floats:
            return buffers.setdefault(use, self.builder.floats(columns))

        return SimpleNamespace(
            builder=self.builder, config=self.config, x=self.builder.floats(self.hidden), shared=shared,
            expert_rooms=None, routing_record=self.record,
        )  # fmt: skip

    def run(self, x: NDArray[np.float32], threads: int = 1, rounds: int = 1) -> NDArray[np.float32]:
        """x after the layer."""
        self.builder.state[STATE_TOKENS] = len(x)
        self.plan.x.array[: len(x)] = floats(x)
        assert not team_of(threads).run(self.job, shared=len(x) > PRIVATE_ROWS, rounds=rounds)
        assert not self.plan.x.array[:, -(-self.hidden // 16) * 16 :].any()
        return np.array(self.plan.x.array[: len(x), : self.hidden])

    def routing(self, rows: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Of the last run."""
        import ctypes

        count = rows * self.moe.num_experts_per_tok
        rooms = self.plan.expert_rooms
        ids = np.frombuffer((ctypes.c_int32 * count).from_address(rooms.ids), np.int32)
        weights = np.frombuffer((ctypes.c_float * count).from_address(rooms.weights), np.float32)
        shape = (rows, self.moe.num_experts_per_tok)
        return ids.reshape(shape).copy(), weights.reshape(shape).copy()

    def mlp(self, at: str) -> tuple[Matrix, Matrix, Matrix]:
        gate, up, down = (self.weights[f"{AT}mlp.{at}.{name}_proj.weight"] for name in ("gate", "up", "down"))
        return gate, up, down
