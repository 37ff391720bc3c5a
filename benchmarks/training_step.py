"""One training step of a small V3-shaped model beside Transformers' DeepseekV3ForCausalLM, in alternation.

Run: python benchmarks/training_step.py [--rounds 5]        Prints one JSON line; needs `dev`.
Workload: 62M parameters (hidden 384, 8 layers, 32 experts of 192 with 4 active and 1 shared, 1 dense layer first,
vocabulary 8,192) in bf16, or float32 on a processor that imitates it, batch 8 x 512 random tokens; forward, backward
and PyTorch's fused AdamW on both sides, and on ours loss-free balancing, sequence-wise loss, the report of load and
`keep_freed_memory` as well, as the trainer has them. Each side lives in a process of its own, of which the peak of
resident memory is reported, beside what it held once the model was built. A round is a step of each and a product of
2,048 x 2,048 between them, after 6 rounds in which both sides' memory grows to what they need; ratios and shares are
medians of the rounds'. FLOPs are those of the model's matrix products and causal attention, three times the forward
pass. Threads wait as `deepseek train` lets them (docs/decisions/008), on both sides.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import transformers

from deepseek import AutoModel
from deepseek.cli.session import require_torch
from deepseek.config import MlaConfig, ModelConfig, MoeConfig, RopeConfig
from deepseek.families import config_to_hf
from deepseek.models.device import choose_dtype
from deepseek.training.balance import RoutingTraining
from deepseek.training.loss import language_model_loss
from deepseek.training.memory import keep_freed_memory

BATCH, LENGTH, LEARNING_RATE, PRODUCT = 8, 512, 3e-4, 2048
MLA = MlaConfig(q_lora_rank=192, kv_lora_rank=128, qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=64)
MOE = MoeConfig(
    n_routed_experts=32, num_experts_per_tok=4, moe_intermediate_size=192, n_shared_experts=1, first_k_dense_replace=1,
    scoring_func="sigmoid", topk_method="noaux_tc", norm_topk_prob=True, routed_scaling_factor=2.5,
)  # fmt: skip
CONFIG = ModelConfig(
    family="deepseek_v3", vocab_size=8192, hidden_size=384, intermediate_size=1024, num_hidden_layers=8,
    num_attention_heads=6, num_key_value_heads=6, head_dim=96, max_position_embeddings=4096, rms_norm_eps=1e-6,
    rope=RopeConfig(theta=10000.0, interleaved=True), mla=MLA, moe=MOE,
)  # fmt: skip
Step = Callable[[torch.Tensor], float]


def ours(threads: int, dtype: torch.dtype) -> tuple[int, Step]:
    """Parameters, and one step over (batch, length + 1) tokens that returns the loss."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    model = AutoModel.from_config(CONFIG, dtype=dtype, seed=0, std=0.02)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    routing = RoutingTraining(model)

    def step(tokens: torch.Tensor) -> float:
        routing.begin_step(1)
        loss = language_model_loss(model, tokens)
        loss.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        routing.end_step()
        return loss.main.item()

    return sum(weight.numel() for weight in model.parameters()), step


def theirs(threads: int, dtype: torch.dtype) -> tuple[int, Step]:
    torch.set_num_threads(threads)
    values = config_to_hf(CONFIG)
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)

    def step(tokens: torch.Tensor) -> float:
        loss = model(input_ids=tokens[:, :-1], labels=tokens[:, :-1], use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.item())

    return sum(weight.numel() for weight in model.parameters()), step


def serve(side: str, threads: int, dtype: torch.dtype, pipe: Connection) -> None:
    """The process of one side: answers each seed with the seconds of a step on random tokens of that seed."""
    parameters, step = {"deepseek": ours, "transformers": theirs}[side](threads, dtype)
    pipe.send({"parameters": parameters, "built_mb": resident_mb()})
    while (seed := pipe.recv()) is not None:
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(0, CONFIG.vocab_size, (BATCH, LENGTH + 1), generator=generator)
        begun = time.perf_counter()
        loss = step(tokens)
        pipe.send({"seconds": time.perf_counter() - begun, "loss": loss})
    pipe.send({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def step_flops() -> float:
    """Of one forward and backward pass: 3 * 2 * (weights used by a token) and causal attention."""
    hidden, layers, heads = CONFIG.hidden_size, CONFIG.num_hidden_layers, CONFIG.num_attention_heads
    assert MLA.q_lora_rank is not None
    attention = hidden * (MLA.q_lora_rank + MLA.kv_lora_rank + MLA.qk_rope_head_dim + heads * MLA.v_head_dim)
    attention += heads * (MLA.q_lora_rank * MLA.qk_head_dim)
    attention += heads * MLA.kv_lora_rank * (MLA.qk_nope_head_dim + MLA.v_head_dim)
    scores = heads * (MLA.qk_head_dim + MLA.v_head_dim) * LENGTH / 2
    dense = 3 * hidden * CONFIG.intermediate_size
    experts = 3 * hidden * MOE.moe_intermediate_size * (MOE.num_experts_per_tok + MOE.n_shared_experts)
    experts += hidden * MOE.n_routed_experts
    moe_layers = sum(CONFIG.is_moe_layer(layer) for layer in range(layers))
    token = layers * (attention + scores) + (layers - moe_layers) * dense + moe_layers * experts
    return 6 * BATCH * LENGTH * (token + hidden * CONFIG.vocab_size)


def product_speed(dtype: torch.dtype) -> float:
    """FLOP/s of one matrix product, the best of five."""
    a, b = (torch.randn(PRODUCT, PRODUCT).to(dtype) for _ in range(2))
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - begun)
    return 2 * PRODUCT**3 / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=6)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", default="auto", help="float32 where a processor imitates bfloat16, else bfloat16")
    args = parser.parse_args()
    require_torch()  # how threads wait, inherited by the processes of both sides
    dtype = choose_dtype(args.dtype, torch.device("cpu"))
    torch.set_num_threads(args.threads)
    context = multiprocessing.get_context("spawn")
    pipes, processes, found = {}, [], {}
    for side in ("deepseek", "transformers"):
        pipes[side], other = context.Pipe()
        processes.append(context.Process(target=serve, args=(side, args.threads, dtype, other), daemon=True))
        processes[-1].start()
        found[side] = pipes[side].recv()
    seconds: dict[str, list[float]] = {side: [] for side in pipes}
    peaks: list[float] = []
    for round_number in range(-args.warm_up, args.rounds):
        peak = product_speed(dtype)
        for side, pipe in pipes.items():
            pipe.send(round_number + args.warm_up)
            answer = pipe.recv()
            if round_number >= 0:
                seconds[side].append(answer["seconds"])
                found[side]["loss"] = round(answer["loss"], 4)
        if round_number >= 0:
            peaks.append(peak)
    for side, pipe in pipes.items():
        pipe.send(None)
        found[side] |= pipe.recv()
    print(json.dumps({"dtype": str(dtype), **report(seconds, peaks, found)}))


def report(seconds: dict[str, list[float]], peaks: list[float], found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    flops = step_flops()
    result: dict[str, Any] = {
        "benchmark": "training_step",
        "batch": [BATCH, LENGTH],
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "threads": torch.get_num_threads(),
        "rounds": len(peaks),
        "step_gflop": round(flops / 1e9, 1),
        "product_gflops": round(statistics.median(peaks) / 1e9, 1),
    }
    for side, taken in seconds.items():
        rounded = {name: round(value) for name, value in found[side].items() if name != "loss"}
        result[side] = rounded | {
            "loss": found[side]["loss"],
            "tokens_per_second": round(BATCH * LENGTH / statistics.median(taken), 1),
            "gflops": round(flops / statistics.median(taken) / 1e9, 1),
            "share_of_product": round(
                statistics.median(flops / step / peak for step, peak in zip(taken, peaks, strict=True)), 3
            ),
        }
    pairs = zip(seconds["deepseek"], seconds["transformers"], strict=True)
    result["ratio"] = round(statistics.median(b / a for a, b in pairs), 2)
    return result


if __name__ == "__main__":
    main()
