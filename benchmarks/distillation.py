"""Optimisers, batches and learning rates for distilling a carved model, each given the same minutes.

Run: python benchmarks/distillation.py --work FOLDER [--minutes 4] [--active 20] [--runs adamw:4:1e-4,muon:4:3e-4]
A run is OPTIMISER:WINDOWS A STEP:LEARNING RATE, and :RATE OF ROUTERS AND NORMS if not the usual. Prints one JSON line:
of each run steps, tokens a second, and the divergence from the dense model on 4,096 held-out tokens (nats a token)
before and after. The carved model is kept in FOLDER, as `carve.py` keeps it.
"""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

from carve import CALIBRATION_WINDOWS
from carve_text import training_texts
from deepseek import AutoModel, AutoTokenizer, hub
from deepseek.training.carve import CarveConfig
from deepseek.training.carve.distillation import DistilConfig, Distillation, held_out_divergence
from deepseek.training.carve.kept import carve_once
from deepseek.training.carve.text import token_windows
from deepseek.training.memory import keep_freed_memory


def _run(words: str) -> tuple[str, dict[str, Any]]:
    """A run's words and what they set."""
    types = {"optimizer": str, "batch": int, "learning_rate": float, "router_learning_rate": float}
    parts = words.split(":")
    if not 3 <= len(parts) <= 4:
        raise argparse.ArgumentTypeError(f"not OPTIMISER:WINDOWS:RATE[:RATE OF ROUTERS]: {words}")
    try:
        settings = {name: kind(part) for (name, kind), part in zip(types.items(), parts, strict=False)}
        DistilConfig(minutes=1, **settings)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{words}: {error}") from error
    return words, settings


def _runs(text: str) -> list[tuple[str, dict[str, Any]]]:
    return [_run(words) for words in text.split(",")]


def main() -> None:
    from deepseek.cli.console import progress_bars

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--active", type=int, default=20, help="of 32 routed experts beside 16 shared")
    parser.add_argument("--runs", type=_runs, default="adamw:2:7e-5,adamw:4:1e-4,muon:4:3e-4")
    options = parser.parse_args()
    keep_freed_memory()
    path = hub.resolve(options.model).path
    windows = token_windows(training_texts(), AutoTokenizer.from_pretrained(path), length=512, seed=0)
    split = CarveConfig(experts=32, shared=16, active=options.active)
    folder = options.work / f"32+16-{options.active}"
    with progress_bars() as report:
        dense = AutoModel.from_pretrained(path, dtype="float32", device="cpu")
        carved = carve_once(dense, windows[:CALIBRATION_WINDOWS], split, folder, report=report).model
        teacher = AutoModel.from_pretrained(path, device="cpu")
        found = []
        for words, settings in options.runs:
            config = DistilConfig(minutes=options.minutes, **settings)
            run = Distillation(copy.deepcopy(carved), teacher, windows, config, calibrated=CALIBRATION_WINDOWS)
            before = held_out_divergence(run.student, run.teacher, run.held_out_wt)
            done = run.run(report)
            found.append({"run": words, "before": before, "speed": round(done["tokens"] / done["seconds"]), **done})
    print(json.dumps({"benchmark": "distillation", "minutes": options.minutes, "runs": found}))


if __name__ == "__main__":
    main()
