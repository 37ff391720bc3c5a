"""A dense model carved: perplexity before and after distillation, and decode speed, at each share of active neurons.

Run: python benchmarks/carve.py --work FOLDER [--minutes 60] [--experts 32 --shared 16 --active 32,20,8] [--control 10]
Prints one JSON line. Whatever was measured is kept in FOLDER: given again, it goes on where it was, also within a
distillation (60 minutes a share). The text to carve and distil on is `carve_text`; perplexity is measured on
`real_text` (100 windows of 512 tokens, 51,100 scored, float32 in PyTorch), decode speed by the engine (96 tokens, best
of 3).

--control: the dense model given the same distillation for so many minutes, towards itself. --copies: sparse upcycling,
4 experts 1 active. --plot FILE: divergence over the distillations, and perplexity by share (needs matplotlib).
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from carve_text import training_texts
from deepseek import AutoModel, AutoTokenizer, hub
from deepseek.models.decoder import Model
from deepseek.profiler.engine_side import EngineSide
from deepseek.profiler.perplexity import text_windows
from deepseek.profiler.work import Work
from deepseek.progress import Report
from deepseek.training.carve import CarveConfig, upcycle
from deepseek.training.carve.distillation import LOG, DistilConfig, Distillation
from deepseek.training.carve.kept import carve_once
from deepseek.training.carve.text import token_windows
from deepseek.training.memory import keep_freed_memory
from real_text import english_text

CALIBRATION_WINDOWS = 192
NOTHING_TO_FIT = 24  # windows: with all experts on neither router nor columns matter


class Bench:
    """Results by name, each computed once and kept."""

    def __init__(self, options: argparse.Namespace, report: Report) -> None:
        self.options, self.report = options, report
        self.work: Path = options.work
        self.work.mkdir(parents=True, exist_ok=True)
        self.path = hub.resolve(options.model, report=report).path
        self.tokenizer = AutoTokenizer.from_pretrained(self.path)
        self.windows = token_windows(training_texts(), self.tokenizer, length=512, seed=0)
        self.text = torch.tensor(text_windows(english_text(), self.path, most=options.windows))
        self._file = self.work / "results.json"
        self.results: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        if name not in self.results:
            self.results[name] = measure()
            partial = self._file.with_suffix(".partial")
            partial.write_text(json.dumps(self.results, indent=1))
            partial.replace(self._file)
        return self.results[name]

    def dense(self) -> Model:
        return AutoModel.from_pretrained(self.path, dtype="float32", device="cpu")

    def teacher(self) -> Model:
        """In the type that this processor multiplies fastest."""
        return AutoModel.from_pretrained(self.path, device="cpu")

    @torch.inference_mode()
    def perplexity(self, model: Model) -> float:
        total, parts = 0.0, torch.split(self.text, 4)
        for number, ids in enumerate(parts):
            self.report("perplexity", number, len(parts), "batches")
            losses = model(ids).logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])
            total -= losses.double().sum().item()
        return math.exp(total / (self.text.shape[0] * (self.text.shape[1] - 1)))

    def dense_decode(self) -> float:
        """From float weights as the carved models' are: the engine makes int8 of both."""
        self.dense().save_pretrained(self.work / "model-dense", self.tokenizer)
        return self.decode(self.work / "model-dense")

    def decode(self, folder: Path) -> float:
        """Tokens a second, the best of three."""
        side, work = EngineSide(folder, threads=None, report=self.report), Work(kind="decode", context=64, count=96)
        try:
            side.tune(work)
            return max(timing.tokens / timing.seconds for timing in (side.run(work) for _ in range(3)))
        finally:
            side.close()

    def share(self, active: int) -> dict[str, Any]:
        options = self.options
        everything = active == options.experts
        config = CarveConfig(experts=options.experts, shared=options.shared, active=active, compensate=not everything)
        name = f"{options.experts}+{options.shared}-{active}"
        folder = self.work / f"model-{name}"
        calibration = self.windows[: NOTHING_TO_FIT if everything else CALIBRATION_WINDOWS]
        carving = carve_once(self.dense(), calibration, config, self.work / name, report=self.report)
        found: dict[str, Any] = {"active_share": config.active_share, "active": active}
        found["perplexity"] = self.once(f"{name} carved", lambda: self.perplexity(carving.to_model()))
        if options.minutes and not everything:
            distil = DistilConfig(minutes=options.minutes)
            run = Distillation(
                carving.model, self.teacher(), self.windows, distil, self.work / name, calibrated=len(calibration)
            )
            found["distillation"] = self.once(f"{name} distillation", lambda: run.run(self.report))
            run.run(self.report)  # already done: reads the state
            found["distilled_perplexity"] = self.once(f"{name} distilled", lambda: self.perplexity(carving.to_model()))
            found["curve"] = _curve(self.work / name / LOG)
        carving.to_model().save_pretrained(folder, self.tokenizer)
        found["decode_tokens_per_second"] = self.once(f"{name} decode", lambda: self.decode(folder))
        return found

    def control(self) -> float:
        student = self.dense()
        distil = DistilConfig(minutes=self.options.control)
        folder = self.work / f"control-{self.options.control:g}"
        Distillation(student, self.teacher(), self.windows, distil, folder).run(self.report)
        return self.perplexity(student)

    def copies(self) -> dict[str, Any]:
        copied = upcycle(self.dense(), experts=4, active=1)
        copied.save_pretrained(self.work / "model-copies", self.tokenizer)
        speed = self.decode(self.work / "model-copies")
        return {"perplexity": self.perplexity(copied), "decode_tokens_per_second": speed}


def _curve(log: Path) -> list[tuple[float, float]]:
    """Minutes, and the divergence on held-out text after so many."""
    entries = {entry["step"]: entry for entry in map(json.loads, log.read_text().splitlines())}
    return [(round(entry["seconds"] / 60, 1), round(entry["held_out_divergence"], 4)) for entry in entries.values()]


def draw(path: str, found: dict[str, Any]) -> None:
    from matplotlib import pyplot

    figure, (curves, shares) = pyplot.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True)
    distilled = [share for share in found["shares"] if "curve" in share]
    for share in distilled:
        curves.plot(*zip(*share["curve"], strict=True), marker="o", label=f"{share['active_share']:.0%} active")
    curves.set(xlabel="minutes of distillation", ylabel="divergence on held-out text, nats a token", ylim=(0, None))
    curves.legend()
    for name, label in (("perplexity", "carved"), ("distilled_perplexity", "distilled")):
        rise = {s["active_share"] * 100: 100 * (s[name] / found["dense_perplexity"] - 1) for s in distilled}
        shares.plot(list(rise), list(rise.values()), marker="o", label=label)
    shares.set(xlabel="% of feed-forward neurons active", ylabel="perplexity over the dense model's, %", ylim=(0, None))
    shares.legend()
    figure.savefig(path)


def main() -> None:
    from deepseek.cli.console import progress_bars

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--experts", type=int, default=32)
    parser.add_argument("--shared", type=int, default=16)
    parser.add_argument("--active", default="32,20,8")
    parser.add_argument("--windows", type=int, default=100)
    parser.add_argument("--control", type=float, default=0, metavar="MINUTES")
    parser.add_argument("--copies", action="store_true")
    parser.add_argument("--plot", metavar="FILE")
    options = parser.parse_args()
    keep_freed_memory()
    with progress_bars() as report:
        bench = Bench(options, report)
        found: dict[str, Any] = {"benchmark": "carve", "model": options.model, "minutes": options.minutes}
        found["experts"], found["shared"] = options.experts, options.shared
        found["dense_perplexity"] = bench.once("dense", lambda: bench.perplexity(bench.dense()))
        found["dense_decode_tokens_per_second"] = bench.once("dense int8 decode", bench.dense_decode)
        found["shares"] = [bench.share(int(active)) for active in options.active.split(",")]
        if options.control:
            found["control_minutes"] = options.control
            found["control_perplexity"] = bench.once(f"control {options.control:g} minutes", bench.control)
        if options.copies:
            found["copies"] = bench.once("copies", bench.copies)
    if options.plot:
        draw(options.plot, found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
