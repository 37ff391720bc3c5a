"""One mixture-of-experts layer in the shape of V2-Lite beside a plain matrix product of the same kind of weights.

Run: python benchmarks/expert_layer.py [--threads 2] [--packing int4-g32] [--repeats 30]        Prints a JSON line.
Workload: 64 experts of 1,408 and a shared one of 2,816 over 2,048, 6 a token, random weights and tokens. Per number of
tokens: GB/s and Gop/s of the layer (routed, shared and router; bytes of the experts that were active), the same of a
plain product of 2,048 inputs alternating with it, and what routing by itself (route, group, gather, combine) takes.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from deepseek.checkpoint.packed import PackedTensor
from deepseek.config import ModelConfig, MoeConfig, RopeConfig
from deepseek.engine.expert_plan import emit_experts
from deepseek.engine.plan_builder import Floats, PlanBuilder
from deepseek.engine.routing_record import RoutingRecord
from deepseek.kernels import experts, routing
from deepseek.kernels.plan import ALWAYS, BARRIER, FUNCTION, PRIVATE_ROWS, STATE_TOKENS
from deepseek.kernels.team import Job, aligned, default_threads, team_of
from deepseek.packing import Packing

HIDDEN, PLAIN_ROWS, PLAIN_ROWS_OF_PROMPT = 2048, 60_000, 8192  # out of every cache; a usual width
MOE = MoeConfig(n_routed_experts=64, num_experts_per_tok=6, moe_intermediate_size=1408, n_shared_experts=2)
CONFIG = ModelConfig(
    family="deepseek", vocab_size=8, hidden_size=HIDDEN, intermediate_size=8, num_hidden_layers=1,
    num_attention_heads=1, num_key_value_heads=1, head_dim=8, max_position_embeddings=8, rms_norm_eps=1e-6,
    rope=RopeConfig(theta=1e4), moe=MOE,
)  # fmt: skip
AT, TOKENS = "model.layers.0.", (1, 16, 512)


class RandomStore:
    """What a plan needs of a packed store: random codes with small scales."""

    def __init__(self, shapes: dict[str, tuple[Packing | None, int, int]]) -> None:
        self.tensors: dict[str, PackedTensor] = {}
        offset = 0
        for name, (packing, rows, inputs) in shapes.items():
            size = packing.matrix_bytes(rows, inputs) if packing else 4 * inputs
            kind = "matrix" if packing else "vector"
            self.tensors[name] = PackedTensor(packing, rows, inputs, offset, size, kind)
            offset += -(-size // 4096) * 4096
        self.data: Any = aligned(offset + 4096, np.uint8)
        rng = np.random.default_rng(0)
        for tensor in self.tensors.values():
            part = self.data[tensor.offset : tensor.offset + tensor.nbytes]
            if tensor.packing is None or not tensor.packing.is_integer:
                part.view(np.float32)[:] = rng.standard_normal(part.size // 4) * 0.03
                continue
            part[:] = rng.integers(0, 256, part.size, np.uint8)
            scales = part.reshape(-1, tensor.packing.block_bytes(tensor.inputs)).view(np.float16)
            scales[:, : tensor.packing.scale_bytes(tensor.inputs) // 2] = 0.003


def shapes(packing: Packing) -> dict[str, tuple[Packing | None, int, int]]:
    found: dict[str, tuple[Packing | None, int, int]] = {
        AT + "post_attention_layernorm.weight": (None, 1, HIDDEN),
        AT + "mlp.gate.weight": (Packing("f32"), MOE.n_routed_experts, HIDDEN),
        "plain.weight": (packing, PLAIN_ROWS, HIDDEN),
    }
    widths = {f"experts.{number}": MOE.moe_intermediate_size for number in range(MOE.n_routed_experts)}
    for name, width in {**widths, "shared_experts": MOE.shared_intermediate_size}.items():
        for side in ("gate", "up"):
            found[f"{AT}mlp.{name}.{side}_proj.weight"] = packing, width, HIDDEN
        found[f"{AT}mlp.{name}.down_proj.weight"] = packing, HIDDEN, width
    return found


def plain_rows(tokens: int) -> int:
    return PLAIN_ROWS if tokens < 100 else PLAIN_ROWS_OF_PROMPT


class Bench:
    """The layer and the plain product as two jobs over the same input."""

    def __init__(self, packing: Packing, threads: int) -> None:
        self.packing, self.store, self.team = packing, RandomStore(shapes(packing)), team_of(threads)
        self.record = RoutingRecord.of(CONFIG, max(TOKENS))
        self.builder, self.x, self.layer = self._job(threads, self._emit_layer)
        self.plain = {
            tokens: self._job(threads, lambda builder, x, tokens=tokens: self._emit_plain(builder, x, tokens))
            for tokens in TOKENS
        }
        self.rng = np.random.default_rng(1)

    def _job(self, threads: int, emit: Any) -> tuple[PlanBuilder, Floats, Job]:
        builder = PlanBuilder(self.store, rows=max(TOKENS), threads=threads)  # type: ignore[arg-type]
        x = builder.floats(HIDDEN)
        emit(builder, x)
        return builder, x, builder.finish()

    def _emit_layer(self, builder: PlanBuilder, x: Floats) -> None:
        buffers: dict[str, Floats] = {}
        plan: Any = SimpleNamespace(
            builder=builder, config=CONFIG, x=x, expert_rooms=None, routing_record=self.record,
            shared=lambda use, columns: buffers.setdefault(use, builder.floats(columns)),
        )  # fmt: skip
        emit_experts(plan, 0)

    def _emit_plain(self, builder: PlanBuilder, x: Floats, tokens: int) -> None:
        matrix = replace(builder.matrix("plain"), rows=plain_rows(tokens))
        builder.linear(builder.prepare(x, matrix), matrix, builder.floats(matrix.rows, tokens))

    def seconds(self, job: Job, builder: PlanBuilder, x: Floats, tokens: int, rounds: int = 1) -> float:
        builder.state[STATE_TOKENS] = tokens
        x.array[:tokens, :HIDDEN] = self.rng.standard_normal((tokens, HIDDEN))
        self.record.start()
        start = time.perf_counter()
        self.team.run(job, shared=tokens > PRIVATE_ROWS, rounds=rounds)
        return time.perf_counter() - start

    def layer_work(self, tokens: int) -> tuple[float, float]:
        """Bytes of weights and operations of the step that ran last."""
        size = {name: tensor.nbytes for name, tensor in self.store.tensors.items()}
        one = sum(size[f"{AT}mlp.experts.0.{name}_proj.weight"] for name in ("gate", "up", "down"))
        shared = sum(size[f"{AT}mlp.shared_experts.{name}_proj.weight"] for name in ("gate", "up", "down"))
        active = len(np.unique(self.record.ids[0, :tokens]))
        width = MOE.moe_intermediate_size * MOE.num_experts_per_tok + MOE.shared_intermediate_size
        nbytes = active * one + shared + size[AT + "mlp.gate.weight"]
        return nbytes, 2 * tokens * HIDDEN * (3 * width + MOE.n_routed_experts)

    def compare(self, tokens: int, repeats: int) -> dict[str, float]:
        speeds: list[tuple[float, float, float, float]] = []
        for turn in range(repeats + 2):
            layer = self.seconds(self.layer, self.builder, self.x, tokens)
            nbytes, operations = self.layer_work(tokens)
            builder, x, job = self.plain[tokens]
            plain = self.seconds(job, builder, x, tokens)
            plain_bytes = self.packing.matrix_bytes(plain_rows(tokens), HIDDEN)
            plain_operations = 2 * tokens * HIDDEN * plain_rows(tokens)
            if turn >= 2:
                speeds.append((nbytes / layer, plain_bytes / plain, operations / layer, plain_operations / plain))
        medians = [round(statistics.median(values) / 1e9, 1) for values in zip(*speeds, strict=True)]
        return dict(zip(("GB/s", "plain GB/s", "Gop/s", "plain Gop/s"), medians, strict=True))

    def routing_microseconds(self, tokens: int) -> dict[str, float]:
        """Each kernel by itself, many rounds in one call, as the layer's last step left the tables."""
        self.seconds(self.layer, self.builder, self.x, tokens)
        found = {}
        for name, kernel in {
            "route": routing.route, "group": experts.group, "gather": experts.gather, "combine": experts.combine,
        }.items():  # fmt: skip
            rows = self.layer.table[self.layer.table[:, FUNCTION] == kernel.address].copy()
            rows[:, BARRIER] = ALWAYS
            job = Job(rows, self.layer.counters, self.layer.state)
            rounds = 20 if tokens > 100 else 200
            times = [self.seconds(job, self.builder, self.x, tokens, rounds) for _ in range(9)]
            found[name] = round(statistics.median(times) / rounds * 1e6, 2)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--packing", default="int4-g32")
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    bench = Bench(Packing.named(arguments.packing), arguments.threads)
    result: dict[str, Any] = {"threads": arguments.threads, "packing": arguments.packing}
    for tokens in TOKENS:
        repeats = max(3, arguments.repeats // (1 if tokens < 100 else 10))
        result[f"{tokens} tokens"] = bench.compare(tokens, repeats) | {"routing us": bench.routing_microseconds(tokens)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
