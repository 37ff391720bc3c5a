"""One mixture-of-experts layer from 16 to 4,096 experts at a fixed number of expert parameters, forward and backward.

Run: python benchmarks/expert_scaling.py [--plot scaling.png]        Prints one JSON line; the plot needs `plot`.
Workload: hidden 2,048, experts of 32,768 / n each (201M parameters in all), 4 active a token by sigmoid scores with a
correction bias, 8,192 tokens, random weights, a float32 router and experts in the type that the processor multiplies
fastest (bfloat16, or float32 where that is imitated). Milliseconds of, forward and backward:
- layer: all of it; switch: a top-1 layer of the same experts with softmax and room for 1.25 times the mean each;
- scores: the product of tokens and router; choice: from its result to experts and weights;
- dispatch: sort, gather and combine, as the layer does it; ragged: the same without rows to spare, which a layer of
  many experts with few tokens accepts for the sake of one batched product.
`predicted` is what operations and bytes take at the speeds of the same minute: 3 x router product in float32, 3 x
expert products in theirs or, if longer, twice reading and once writing their weights, and moving the tokens. Medians.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from deepseek.config import ModelConfig, MoeConfig, RopeConfig
from deepseek.models.device import fast_dtype
from deepseek.models.experts import _summed
from deepseek.models.initialise import initialise
from deepseek.models.moe import MoE
from deepseek.models.routing import Dispatch, Layout, Routing, dispatch
from deepseek.training.memory import keep_freed_memory

HIDDEN, WIDTH, ACTIVE, CAPACITY = 2048, 32_768, 4, 1.25
DTYPE = fast_dtype(torch.device("cpu"))
PRODUCT, COPIED = 2048, 1 << 28
Layer = Callable[[], None]


def layer_of(experts: int, **changes: Any) -> MoE:
    values: dict[str, Any] = {
        "n_routed_experts": experts, "num_experts_per_tok": ACTIVE, "moe_intermediate_size": WIDTH // experts,
        "scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": True, **changes,
    }  # fmt: skip
    config = ModelConfig(
        family="deepseek_v3", vocab_size=8, hidden_size=HIDDEN, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, head_dim=8, max_position_embeddings=8, rms_norm_eps=1e-6,
        rope=RopeConfig(theta=1e4), moe=MoeConfig(**values),
    )  # fmt: skip
    with torch.device("meta"):
        layer = MoE(config)
    layer.to(DTYPE).to_empty(device="cpu")
    initialise(layer, std=0.02, generator=torch.Generator().manual_seed(0))
    return layer


def milliseconds(work: Callable[[], object], rounds: int) -> float:
    work()
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(times)


class Workload:
    """The parts of a layer as functions without arguments; gradients of weights are dropped after each."""

    def __init__(self, experts: int, tokens: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.layer = layer_of(experts)
        self.x_nm = torch.randn(tokens, HIDDEN, generator=generator).to(DTYPE).requires_grad_()
        self.grad_nm = torch.randn(tokens, HIDDEN, generator=generator).to(DTYPE)
        self.routing: Routing = self.layer.gate(self.x_nm.detach())
        self.grad_ne = torch.randn(tokens, experts, generator=generator)

    def run_layer(self) -> None:
        self.layer(self.x_nm[None]).backward(self.grad_nm[None])
        self._forget()

    def run_scores(self) -> None:
        F.linear(self.x_nm.float(), self.layer.gate.weight.float()).backward(self.grad_ne)
        self._forget()

    def run_choice(self) -> None:
        logits_ne = self.routing.logits_ne.detach().requires_grad_()
        self.layer.gate.chosen(logits_ne).weights_nk.sum().backward()

    def run_dispatch(self, layout: Layout) -> None:
        """The gathers and sums of one forward and backward pass, without the products between."""
        order: Dispatch = dispatch(self.routing, layout)
        with torch.no_grad():
            x_pm = self.x_nm.index_select(0, order.token_p)
            _summed(x_pm, order.place_nk, self.routing.weights_nk)
            self.grad_nm.index_select(0, order.token_p)
            self.x_nm.index_select(0, order.token_p)
            _summed(x_pm, order.place_nk, None)

    def as_switch(self) -> Layer:
        """The same experts behind a top-1 router with capacity."""
        layer = layer_of(
            self.layer.gate.moe.n_routed_experts, num_experts_per_tok=1, scoring_func="softmax", topk_method="greedy",
            norm_topk_prob=False,
        )  # fmt: skip
        layer.experts = self.layer.experts
        layer.experts.path = "batched"
        tokens, experts = len(self.x_nm), layer.gate.moe.n_routed_experts
        capacity_e = torch.full((experts,), max(1, round(CAPACITY * tokens / experts)))

        def run() -> None:
            routing = layer.gate(self.x_nm)._replace(capacity_e=capacity_e)
            layer.experts(self.x_nm, routing).backward(self.grad_nm)
            self._forget()

        return run

    def _forget(self) -> None:
        self.x_nm.grad = None
        self.layer.zero_grad()


def speeds() -> dict[str, float]:
    """FLOP/s of a matrix product of routers and of experts, and bytes a second read and written by a copy."""
    a = torch.randn(PRODUCT, PRODUCT)
    b, source = a.to(DTYPE), torch.zeros(COPIED, dtype=torch.uint8)
    target = torch.empty_like(source)
    flops = 2 * PRODUCT**3
    return {
        "router": flops / milliseconds(lambda: torch.mm(a, a), 5) * 1e3,
        "experts": flops / milliseconds(lambda: torch.mm(b, b), 5) * 1e3,
        "bytes": 2 * COPIED / milliseconds(lambda: target.copy_(source), 5) * 1e3,
    }


def predicted(experts: int, tokens: int, speed: dict[str, float]) -> float:
    """Milliseconds; see above. Tokens are moved five times, k rows each, read and written."""
    router = 3 * 2 * tokens * HIDDEN * experts / speed["router"]
    operations = 3 * 2 * tokens * ACTIVE * 3 * HIDDEN * (WIDTH // experts) / speed["experts"]
    weights = 3 * 3 * HIDDEN * WIDTH * DTYPE.itemsize / speed["bytes"]
    moved = 5 * 2 * tokens * ACTIVE * HIDDEN * DTYPE.itemsize / speed["bytes"]
    return 1e3 * (router + max(operations, weights) + moved)


def measure(experts: int, tokens: int, rounds: int) -> dict[str, float]:
    speed = speeds()
    work = Workload(experts, tokens)
    found = {
        "layer": milliseconds(work.run_layer, rounds),
        "predicted": predicted(experts, tokens, speed),
        "scores": milliseconds(work.run_scores, rounds),
        "choice": milliseconds(work.run_choice, 3 * rounds),
        "dispatch": milliseconds(lambda: work.run_dispatch("auto"), 3 * rounds),
        "ragged": milliseconds(lambda: work.run_dispatch("ragged"), 3 * rounds),
        "switch": milliseconds(work.as_switch(), rounds),
    }
    found = {name: round(value, 2) for name, value in found.items()}
    return found | {"to_predicted": round(found["layer"] / found["predicted"], 3)}


def fitted_line(points: dict[int, float]) -> tuple[float, float]:
    """Milliseconds at no experts and for each 1,000 of them, by least squares."""
    experts, times = torch.tensor(list(points), dtype=torch.float64), torch.tensor(list(points.values())).double()
    columns = torch.stack((torch.ones_like(experts), experts / 1000), dim=1)
    start, slope = torch.linalg.lstsq(columns, times[:, None]).solution.flatten().tolist()
    return round(start, 2), round(slope, 2)


def draw(path: str, found: dict[int, dict[str, float]], line: tuple[float, float]) -> None:
    from matplotlib import pyplot

    experts = list(found)
    figure, (whole, parts) = pyplot.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True)
    for axes, names in ((whole, ("layer", "predicted", "switch")), (parts, ("dispatch", "ragged", "choice", "scores"))):
        for name in names:
            axes.plot(experts, [values[name] for values in found.values()], marker="o", label=name)
        axes.set(xscale="log", yscale="log", xlabel="experts", ylabel="ms, forward and backward")
    parts.plot(experts, [line[0] + line[1] * count / 1000 for count in experts], "k--", label="line through ragged")
    for axes in (whole, parts):
        axes.set_xticks(experts, map(str, experts))
        axes.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, nargs="+", default=[16, 64, 256, 1024, 4096])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", metavar="FILE")
    args = parser.parse_args()
    keep_freed_memory()
    found = {experts: measure(experts, args.tokens, args.rounds) for experts in args.experts}
    line = fitted_line({experts: values["ragged"] for experts, values in found.items()})
    if args.plot:
        draw(args.plot, found, line)
    first, last = found[args.experts[0]], found[args.experts[-1]]
    result = {
        "benchmark": "expert_scaling",
        "hidden": HIDDEN,
        "expert_parameters": 3 * HIDDEN * WIDTH,
        "active": ACTIVE,
        "tokens": args.tokens,
        "dtype": str(DTYPE).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "experts": found,
        "growth": {name: round(last[name] / first[name], 3) for name in ("dispatch", "ragged")},
        "ragged_line_ms": {"start": line[0], "per_1000_experts": line[1]},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
