"""A mixture of experts beside its dense twin of equal active parameters: loss at equal tokens and at equal seconds.

Run: python benchmarks/dense_twin.py RUN TWIN [--tokens 1000000] [--plot twin.svg] [--weights FILE --twin-weights FILE]
RUN and TWIN are run folders of `deepseek train` (recipes/tiny-moe.toml, recipes/dense-twin.toml) on the same data.
Where only RUN's records are left, --weights names what became of it, --twin-weights TWIN's in the same type.
Prints one JSON line: the held-out loss of both as `held_out_balance.py` measures it (--tokens 0 leaves it out), that of
their evaluations at the same steps (sources weighted as in training), tokens a second, and training losses, smoothed
over 50 steps, at equal tokens and at equal seconds of computing, while the learning rate of both was at its peak (a
falling rate makes losses fall: the end of one is not to be compared with the middle of the other).
Seconds are tokens over the run's median speed: what else the machine did meanwhile does not count. --speeds 1106,1279:
tokens a second of RUN and TWIN where both were measured in turns, as runs of different days are not to be compared.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from deepseek.training.prepared import mixture_of, prepared_data
from deepseek.training.recipe import Recipe
from held_out_balance import log_of, measure

SMOOTHED = 50  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("twin", type=Path, metavar="TWIN")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="at most so many held-out ones of each source")
    parser.add_argument("--weights", type=Path, help="of RUN; by default its newest checkpoint")
    parser.add_argument("--twin-weights", type=Path, help="of TWIN; by default its newest checkpoint")
    parser.add_argument("--speeds", type=lambda text: [float(speed) for speed in text.split(",")], default=[None, None])
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    runs = {"mixture": options.run, "dense": options.twin}
    speeds = dict(zip(runs, options.speeds, strict=True))
    curves = {name: curve(log_of(run), speeds[name]) for name, run in runs.items()}
    found: dict[str, Any] = {"benchmark": "dense_twin"}
    weights = {"mixture": options.weights, "dense": options.twin_weights}
    for name, run in runs.items():
        found[name] = {"active_parameters": json.loads((run / "run.json").read_text())["active_parameters"]}
        found[name]["tokens_per_second"] = round(curves[name]["speed"])
        if options.tokens:
            held_out = measure(run, options.tokens, weights[name], data_of=options.twin)
            found[name] |= {key: held_out[key] for key in ("trained_tokens", "tokens", "loss")}
    found["evaluations"] = evaluations(runs)
    for axis in ("tokens", "seconds"):
        found[f"at_equal_{axis}"] = at_equal(axis, curves)
    print(json.dumps(found))
    if options.plot:
        draw(curves, options.plot)


def evaluations(runs: dict[str, Path]) -> dict[int, dict[str, float]]:
    """Held-out loss by step and run, where all runs were evaluated."""
    table = Recipe.from_dict(json.loads((runs["dense"] / "run.json").read_text())["recipe"]).data
    shares = mixture_of(table, prepared_data(table)).stages[-1].shares
    losses: dict[int, dict[str, float]] = {}
    for name, run in runs.items():
        for line in map(json.loads, (run / "evaluations.jsonl").read_text().splitlines()):
            weight = {source: shares.get(source, 0.0) for source in line["loss"]}
            loss = sum(weight[source] * line["loss"][source] for source in weight) / sum(weight.values())
            losses.setdefault(line["step"], {})[name] = round(loss, 4)
    return {step: found for step, found in losses.items() if len(found) == len(runs)}


def curve(log: list[dict[str, Any]], speed: float | None) -> dict[str, Any]:
    """Of every step; `peak` marks those at the highest learning rate."""
    losses = [line["main_loss"] for line in log]
    highest = max(line["learning_rate"] for line in log)
    speed = speed or statistics.median(line["tokens_per_second"] for line in log)
    return {
        "tokens": [line["tokens"] for line in log],
        "seconds": [line["tokens"] / speed for line in log],
        "loss": [statistics.fmean(losses[max(0, at - SMOOTHED) : at]) for at in range(1, len(log) + 1)],
        "peak": [line["learning_rate"] >= highest for line in log],
        "speed": speed,
    }


def at_equal(axis: str, curves: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Smoothed training losses where the run that got less far on this axis leaves the peak of its learning rate."""
    last = {name: max(at for at, peak in enumerate(values["peak"]) if peak) for name, values in curves.items()}
    where = min(values[axis][last[name]] for name, values in curves.items())
    found = {axis: where}
    for name, values in curves.items():
        at = max(at for at, reached in enumerate(values[axis]) if reached <= where)
        found[name] = round(values["loss"][at], 3)
    return found


def draw(curves: dict[str, dict[str, Any]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg" if path.suffix == ".svg" else "agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.8), layout="constrained", sharey=True)
    for axis, (key, scale, label) in zip(
        axes, (("tokens", 1e6, "million tokens"), ("seconds", 60, "minutes of computing")), strict=True
    ):
        for name, values in curves.items():
            axis.plot([value / scale for value in values[key]], values["loss"], label=name)
        axis.set(xlabel=label, ylabel="training loss, nats a token", ylim=(None, 6))
    axes[0].legend(frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
