"""A mixture of experts beside its dense twin of equal active parameters: loss at equal tokens and at equal seconds.

Run: python benchmarks/dense_twin.py RUN TWIN [--tokens 1000000] [--plot twin.svg] [--weights FILE --twin-weights FILE]
RUN and TWIN are run folders of `deepseek train` (recipes/tiny-moe.toml, recipes/dense-twin.toml) on the same data.
Where only RUN's records are left, --weights names what became of it, --twin-weights TWIN's in the same type.
Prints one JSON line: the held-out loss of both as `held_out_balance.py` measures it, tokens a second, and training
losses, smoothed over 50 steps, at equal tokens and at equal seconds of computing, while the learning rate of both was
at its peak (a falling rate makes losses fall: the end of one is not to be compared with the middle of the other).
Seconds are tokens over the run's median speed: what else the machine did meanwhile does not count.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from held_out_balance import log_of, measure

SMOOTHED = 50  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("twin", type=Path, metavar="TWIN")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="at most so many held-out ones of each source")
    parser.add_argument("--weights", type=Path, help="of RUN; by default its newest checkpoint")
    parser.add_argument("--twin-weights", type=Path, help="of TWIN; by default its newest checkpoint")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    runs = {"mixture": options.run, "dense": options.twin}
    curves = {name: curve(log_of(run)) for name, run in runs.items()}
    found: dict[str, Any] = {"benchmark": "dense_twin"}
    weights = {"mixture": options.weights, "dense": options.twin_weights}
    for name, run in runs.items():
        held_out = measure(run, options.tokens, weights[name], data_of=options.twin)
        found[name] = {key: held_out[key] for key in ("trained_tokens", "trained_seconds", "tokens", "loss")}
        found[name]["active_parameters"] = json.loads((run / "run.json").read_text())["active_parameters"]
        found[name]["tokens_per_second"] = round(curves[name]["speed"])
    found["held_out_difference"] = found["mixture"]["loss"] - found["dense"]["loss"]
    for axis in ("tokens", "seconds"):
        found[f"at_equal_{axis}"] = at_equal(axis, curves)
    print(json.dumps(found))
    if options.plot:
        draw(curves, options.plot)


def curve(log: list[dict[str, Any]]) -> dict[str, Any]:
    """Of every step; `peak` marks those at the highest learning rate."""
    losses = [line["main_loss"] for line in log]
    highest = max(line["learning_rate"] for line in log)
    speed = statistics.median(line["tokens_per_second"] for line in log)
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
