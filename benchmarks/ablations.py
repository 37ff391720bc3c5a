"""Runs that differ in one thing, trained in turns on the same tokens: balancing, capacity, and a dense twin.

Run: python benchmarks/ablations.py --work FOLDER [--until 600] [--turn 50] [--only NAME ...] [--set KEY=VALUE ...]
Trains recipes/ablation.toml in each of VARIANTS, `--turn` steps of one in a process of its own, then of the next,
so that a slow hour of the machine falls on all alike. Given again it goes on where it was. Prints one JSON line: for
each, steps, loss of the last tenth, tokens a second (median of the steps), assignments dropped (share of all), memory
(most of a process), MaxVio of a batch (mean of the last tenth). Held-out loss and MaxVio: held_out_balance.py FOLDER/*
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepseek.training.memory import keep_freed_memory
from deepseek.training.plan import Plan
from deepseek.training.prepared import prepared_data
from deepseek.training.recipe_file import read_recipe
from deepseek.training.stop import StopRequest
from deepseek.training.trainer import Trainer

RECIPE = Path(__file__).parent.parent / "recipes" / "ablation.toml"
UNBALANCED = ("balance.bias_update_speed=0", "balance.sequence_loss=0")
VARIANTS: dict[str, tuple[str, ...]] = {
    "loss-free": (),
    "no-balancing": UNBALANCED,
    "auxiliary-loss": (*UNBALANCED, "balance.auxiliary_loss=0.01"),
    "fixed-capacity": ("capacity.mode=fixed",),
    "dynamic-capacity": ("capacity.mode=dynamic",),
    "fixed-capacity-unbalanced": (*UNBALANCED, "capacity.mode=fixed"),
    "dense-twin": ("model.kind=dense",),
}


class Turn:
    """Ends a run once it has so many steps."""

    def __init__(self, stop: StopRequest, until: int) -> None:
        self._stop, self._until = stop, until

    def step(self, record: Mapping[str, Any], plan: Plan) -> None:
        if record["step"] >= self._until:
            self._stop.ask()

    def note(self, text: str) -> None:
        pass


def take_turn(name: str, until: int, changes: list[str], work: Path) -> None:
    """The child's part."""
    keep_freed_memory()
    recipe = read_recipe(RECIPE, changes=[*VARIANTS[name], *changes])
    trainer = Trainer(recipe, work / name, prepared_data(recipe.data))
    with StopRequest() as stop:
        trainer.run(Turn(stop, until), resume=True, stop=stop)


def log_of(run: Path) -> list[dict[str, Any]]:
    path = run / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summary(run: Path) -> dict[str, Any]:
    log = log_of(run)
    late = log[-max(1, len(log) // 10) :]
    facts = {
        "steps": len(log),
        "tokens": log[-1]["tokens"],
        "loss": statistics.mean(line["main_loss"] for line in late),
        "tokens_per_second": statistics.median(line["tokens_per_second"] for line in log),
        "memory_mb": max(line["memory_bytes"] for line in log) / 1e6,
    }
    routed = [line for line in log if line.get("layers")]
    if routed:
        layers = [layer for line in routed for layer in line["layers"]]
        per_step = routed[0]["tokens"] / routed[0]["step"]
        last = [layer for line in late if line.get("layers") for layer in line["layers"]]
        facts["max_violation"] = statistics.mean(layer["max_violation"] for layer in last)
        active = json.loads((run / "run.json").read_text())["config"]["moe"]["num_experts_per_tok"]
        facts["dropped_share"] = statistics.mean(layer["dropped"] for layer in layers) / (per_step * active)
        facts["dropped_at_most"] = max(layer["dropped"] for layer in layers) / (per_step * active)
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--until", type=int, default=600, help="steps of each")
    parser.add_argument("--turn", type=int, default=50, help="steps before it is the next one's turn")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        take_turn(options.child, options.until, options.changes, options.work)
        return
    changes = [part for change in options.changes for part in ("--set", change)]
    for until in range(options.turn, options.until + options.turn, options.turn):
        for name in options.only:
            done = len(log_of(options.work / name))
            if done >= min(until, options.until):
                continue
            command = [sys.executable, __file__, "--work", str(options.work), "--child", name, *changes]
            subprocess.run([*command, "--until", str(min(until, options.until))], check=True)
            print(f"{name}: {len(log_of(options.work / name))} steps", file=sys.stderr)
    print(json.dumps({name: summary(options.work / name) for name in options.only}))


if __name__ == "__main__":
    main()
