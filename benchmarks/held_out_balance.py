"""How evenly the experts of trained models work on text that none of them saw, and the loss there, beside each other.

Run: python benchmarks/held_out_balance.py RUN [RUN ...] [--tokens 1000000] [--plot curves.png]
RUN is a run folder of `deepseek train`; its final checkpoint is taken, or its newest. Prints one JSON line. For every
run, over the same held-out tokens of its data (and how long it trained, for a mixture beside its dense twin):
- loss: nats a token, each source weighted by its share in training, and as the text lies (`loss_plain`);
- max_violation: the largest load of an expert over the mean load, less 1 (MaxVio of arXiv 2408.15664), of all tokens
  together with each source weighted by its share in training: mean over layers, the worst one, and each.
The correction biases stay as training left them. --plot draws loss and MaxVio of each run as it trained.
"""

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepseek import AutoModel
from deepseek.models.decoder import Model
from deepseek.models.moe import Router
from deepseek.models.routing import Routing
from deepseek.training.data import Batches
from deepseek.training.loss import language_model_loss
from deepseek.training.prepared import mixture_of, prepared_data
from deepseek.training.recipe import Recipe

MICRO_BATCH = 16


class Loads:
    """Assignments to every expert of every layer, until `take`."""

    def __init__(self, model: Model) -> None:
        self.routers = [(name, module) for name, module in model.named_modules() if isinstance(module, Router)]
        self._counts: dict[str, Tensor] = {}
        for name, router in self.routers:
            router.register_forward_hook(lambda router, _, routing, name=name: self._count(name, router, routing))

    def _count(self, name: str, router: Router, routing: Routing) -> None:
        counts_e = torch.bincount(routing.indices_nk.flatten(), minlength=router.moe.n_routed_experts)
        self._counts[name] = self._counts.get(name, 0) + counts_e

    def take(self) -> dict[str, Tensor]:
        counts, self._counts = self._counts, {}
        return counts


def newest_checkpoint(run: Path) -> Path:
    final = run / "checkpoints" / "final"
    return final if final.exists() else max((run / "checkpoints").glob("step-*"))


def log_of(run: Path, last_step: int | None = None) -> list[dict[str, Any]]:
    """Of all steps, or as far as last_step."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()[:last_step]]


def held_out(batches: Batches, source: str, most: int) -> Iterator[Tensor]:
    """Batches of one source until about `most` tokens are read."""
    per_batch = batches.batch_size * batches.sequence_length
    for batch in itertools.islice(batches.held_out(source), max(1, round(most / per_batch))):
        yield torch.from_numpy(batch)


@torch.inference_mode()
def measure(
    run: Path,
    tokens: int,
    checkpoint: Path | None = None,
    last_step: int | None = None,
    data_of: Path | None = None,
) -> dict[str, Any]:
    """checkpoint: other weights of the run than its newest, which are those of last_step. data_of: another run, whose
    held-out text is read."""
    recipe = Recipe.from_dict(json.loads(((data_of or run) / "run.json").read_text())["recipe"])
    data = prepared_data(recipe.data)
    mixture = mixture_of(recipe.data, data)
    batches = Batches(data, mixture, sequence_length=recipe.stage.sequence_length, batch_size=MICRO_BATCH, seed=0)
    model = AutoModel.from_pretrained(checkpoint or newest_checkpoint(run)).eval()
    loads = Loads(model)
    shares = mixture.stages[-1].shares
    per_source: dict[str, tuple[float, int, dict[str, Tensor]]] = {}
    for source in batches.sources:
        total, read = 0.0, 0
        for part in held_out(batches, source, tokens):
            predicted = part[:, 1:].numel()
            total += float(language_model_loss(model, part.to(model.device), mtp_weight=0.0).main) * predicted
            read += predicted
        if read:
            per_source[source] = total, read, loads.take()
    read = sum(count for _, count, _ in per_source.values())
    weight = {source: shares.get(source, 0.0) for source in per_source}
    weight = {source: share / sum(weight.values()) for source, share in weight.items()}
    log = log_of(run, last_step)
    facts: dict[str, Any] = {
        "trained_tokens": log[-1]["tokens"],
        "trained_seconds": round(sum(line["seconds"] for line in log)),
        "tokens": read,
        "loss": sum(weight[source] * total / count for source, (total, count, _) in per_source.items()),
        "loss_plain": sum(total for total, _, _ in per_source.values()) / read,
    }
    if not loads.routers:
        return facts
    layers = {}
    for name, _ in loads.routers:
        if name in next(iter(per_source.values()))[2]:  # prediction layers do not run here
            shares_se = torch.stack([weight[source] * _shares(found[2][name]) for source, found in per_source.items()])
            load_e = shares_se.sum(dim=0)
            layers[name] = float(load_e.max() * len(load_e) - 1)
    violations = list(layers.values())
    return facts | {"max_violation": float(np.mean(violations)), "worst": max(violations), "layers": layers}


def _shares(counts_e: Tensor) -> Tensor:
    return counts_e / counts_e.sum()


def draw(logs: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """logs: the lines of log.jsonl by what to call them."""
    import matplotlib as mpl

    mpl.use("svg" if path.suffix == ".svg" else "agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for name, lines in logs.items():
        window = max(1, len(lines) // 100)
        ends = slice(window - 1, None, max(1, len(lines) // 1000))
        tokens = np.array([line["tokens"] for line in lines]) / 1e6
        smooth = np.convolve([line["main_loss"] for line in lines], np.ones(window) / window, "full")[: len(lines)]
        left.plot(tokens[ends], smooth[ends], label=name)
        routed = [line for line in lines if line.get("layers")]
        violation = [np.mean([layer["max_violation"] for layer in line["layers"]]) for line in routed]
        right.plot([line["tokens"] / 1e6 for line in routed], violation, label=name)
    left.set(xlabel="million tokens", ylabel="training loss, nats a token")
    right.set(xlabel="million tokens", ylabel="MaxVio of a batch, mean over layers", yscale="log")
    left.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="at most so many of each source")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    print(json.dumps({run.name: measure(run, options.tokens) for run in options.runs}))
    if options.plot:
        draw({run.name: log_of(run) for run in options.runs}, options.plot)


if __name__ == "__main__":
    main()
