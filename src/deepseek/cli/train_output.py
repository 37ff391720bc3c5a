"""What `deepseek train` prints: the plan before, a line for each step, what to do with the model after."""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from deepseek.cli.console import LOG_EVERY_SECONDS, err, out, print_json

if TYPE_CHECKING:
    from rich.progress import Progress

    from deepseek.training.plan import Plan
    from deepseek.training.recipe import Recipe
    from deepseek.training.trainer import Outcome, Trainer

_MANY_PASSES = 8.0  # over the text, from which on a model learns it by heart more than it learns from it


def train_and_print(trainer: "Trainer", *, resume: bool, as_json: bool, command: str) -> None:
    """Run it; raises typer.Exit with 128 + the signal when it was stopped."""
    folder = trainer.run_folder.path
    trainer.check_folder(resume)  # before the plan is printed, which would push the message out of sight
    if not as_json:
        data = {"described": f"{trainer.data_facts.folder}: {trainer.data_facts}"}
        err.print("\n".join(lines_of(trainer.recipe, trainer.plan, data)), markup=False, soft_wrap=True, style="dim")
        _print_notes(trainer)
        err.print(f"watch it: deepseek serve --runs {folder.parent}", markup=False, style="dim", soft_wrap=True)
    watcher = _Watcher()
    try:
        outcome = trainer.run(watcher, resume=resume)
    except KeyboardInterrupt:
        watcher.stop()
        newest = trainer.newest_checkpoint
        err.print("interrupted: the steps since the last checkpoint are not saved", style="bold")
        err.print(f"continue from {newest.name}: {command}" if newest else "there is no checkpoint yet", soft_wrap=True)
        raise SystemExit(130) from None
    finally:
        watcher.stop()
    if as_json:
        data = trainer.data_facts.to_dict()
        print_json({**facts_of(trainer.recipe, trainer.plan, folder, data), **_outcome(outcome)})
    else:
        _print_outcome(outcome, trainer, command)
    if outcome.signal is not None:
        raise typer.Exit(128 + outcome.signal)


def _print_notes(trainer: "Trainer") -> None:
    import json

    from deepseek.training.data.prepare import REPORT, notes

    facts = trainer.data_facts
    report = facts.folder / REPORT
    said = notes(json.loads(report.read_text(encoding="utf-8"))) if report.exists() else []
    if facts.passes and facts.passes[0] >= _MANY_PASSES:
        passes = f"{facts.passes[0]:,.0f} passes over the text"
        said.append(f"note: {passes}: the model learns it by heart; more text would teach it more")
    if not facts.held_out_tokens:
        said.append("note: no text is held out, so no held-out loss is measured")
    for line in said:
        err.print(line, markup=False, soft_wrap=True)


def facts_of(recipe: "Recipe", plan: "Plan", folder: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """For --json."""
    from dataclasses import asdict

    from deepseek.training.size import describe

    return {
        "run": str(folder),
        "model": {re.sub(r"[^A-Za-z]+", "_", name): value for name, value in describe(plan.config).items()},
        "stages": [
            {
                "name": stage.name,
                "steps": stage.stop - stage.start,
                "tokens": (stage.stop - stage.start) * stage.tokens_per_step,
                "sequence_length": stage.sequence_length,
                "batch_size": stage.batch_size,
                "micro_batch_size": stage.micro_batch_size,
                "learning_rate": stage.learning_rate,
                "schedule": stage.schedule.name,
            }
            for stage in plan.stages
        ],
        "optimizer": asdict(recipe.optimizer),
        "balance": asdict(recipe.balance),
        "capacity": asdict(recipe.capacity),
        "precision": recipe.training.precision,
        "data": {name: value for name, value in data.items() if name != "described"},
    }


def lines_of(recipe: "Recipe", plan: "Plan", data: Mapping[str, Any]) -> list[str]:
    """The same for people, one aligned line each."""
    from deepseek.training.size import describe

    rows = [(name, f"{value:,}") for name, value in describe(plan.config).items()]
    for stage in plan.stages:
        steps = stage.stop - stage.start
        rows.append(
            (
                f"stage {stage.name}",
                f"{steps:,} step{'s' * (steps != 1)} of {stage.batch_size} x {stage.sequence_length:,} tokens: "
                f"{steps * stage.tokens_per_step:,}; learning rate {stage.learning_rate:.2e}, {stage.schedule.name}",
            )
        )
    optimizer, balance = recipe.optimizer, recipe.balance
    terms = ("sequence_loss", "auxiliary_loss", "global_batch_loss", "router_z_loss")
    strengths = {"bias": balance.bias_update_speed, **{name: getattr(balance, name) for name in terms}}
    rows += [
        ("optimizer", f"{optimizer.name}, weight decay {optimizer.weight_decay:g}, clip norm {optimizer.clip_norm}"),
        ("balance", ", ".join(f"{name} {value:g}" for name, value in strengths.items() if value) or "none"),
        ("capacity", recipe.capacity.mode),
        ("precision", recipe.training.precision),
        ("data", str(data["described"])),
    ]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def _outcome(outcome: "Outcome") -> dict[str, Any]:
    return {
        "step": outcome.step,
        "trained_tokens": outcome.tokens,
        "loss": outcome.loss,
        "mtp_loss": outcome.mtp_loss,
        "checkpoint": str(outcome.checkpoint) if outcome.checkpoint else None,
        "stopped_by_signal": outcome.signal,
    }


def _print_outcome(outcome: "Outcome", trainer: "Trainer", command: str) -> None:
    out.print(str(outcome.checkpoint), markup=False, soft_wrap=True)
    loss = "" if outcome.loss is None else f", loss {outcome.loss:.4f}"
    if outcome.mtp_loss:
        loss += f" (MTP layers {outcome.mtp_loss:.4f})"
    if outcome.signal is not None:
        err.print(
            f"stopped and saved after step {outcome.step:,} of {trainer.plan.steps:,}{loss}; resume with",
            soft_wrap=True,
        )
        err.print(command, markup=False, soft_wrap=True)
        return
    model = trainer.run_folder.checkpoints / "final"
    err.print(f"done: {outcome.tokens:,} tokens in {outcome.step:,} step{'s' * (outcome.step != 1)}{loss}")
    for what, verb in (
        ("continue a text", f'generate {model} --prompt "Once"'),
        ("serve it", f"serve {model}"),
        ("measure it", f"evaluate {trainer.run_folder.path}"),
    ):
        err.print(f"{what}: deepseek {verb}", markup=False, style="dim", soft_wrap=True)


class _Watcher:
    """A line that moves in a terminal; in a log a line now and then."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._logged = 0.0
        self._begun: tuple[float, int] | None = None  # the time at which the first step of this session was done

    def step(self, record: Mapping[str, Any], plan: "Plan") -> None:
        told = (
            f"loss {record['main_loss']:.3f}  lr {record['learning_rate']:.1e}  "
            f"{record['tokens_per_second']:,.0f} tokens/s  {record['peak_share']:.0%} of peak"
        )
        left = self._left(record, plan)
        if err.is_terminal:
            self._show(record["step"], plan.steps, f"{told}  {left}")
        elif time.monotonic() - self._logged >= LOG_EVERY_SECONDS:
            self._logged = time.monotonic()
            err.print(f"step {record['step']:,}/{plan.steps:,}  {told}  {left}", markup=False, soft_wrap=True)

    def _left(self, record: Mapping[str, Any], plan: "Plan") -> str:
        """By the mean of this session's steps; from the first step on by its own time."""
        now, tokens = time.monotonic(), record["tokens"]
        if self._begun is None:
            self._begun = (now, tokens)
        elapsed, done = now - self._begun[0], tokens - self._begun[1]
        speed = done / elapsed if done > 0 and elapsed > 0 else record["tokens_per_second"]
        return f"about {_duration((plan.tokens - tokens) / speed)} left"

    def _show(self, step: int, steps: int, told: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        if self._bar is None:
            columns = (TextColumn("{task.completed:,}/{task.total:,}"), BarColumn(bar_width=20))
            self._bar = Progress(*columns, TextColumn("{task.description}"), console=err)
            self._bar.start()
            self._bar.add_task(told, total=steps)
        self._bar.update(self._bar.task_ids[0], completed=step, description=told)

    def note(self, text: str) -> None:
        err.print(text, markup=False, style="dim", soft_wrap=True)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def print_keys(*, as_json: bool) -> None:
    """Every key of both kinds of recipe."""
    from dataclasses import asdict

    from rich.table import Table

    from deepseek.training.keys import data_keys, run_keys

    found = {"run": run_keys(), "data": data_keys()}
    if as_json:
        print_json({kind: [asdict(key) for key in keys] for kind, keys in found.items()})
        return
    for title, keys in {
        "recipe of a run (deepseek train)": found["run"],
        "of data (deepseek data)": found["data"],
    }.items():
        table = Table(title=title, title_justify="left", box=None, header_style="dim", pad_edge=False)
        for name in ("key", "default", "meaning"):
            table.add_column(name, overflow="fold")
        for key in keys:
            table.add_row(key.name, key.default or "(must be given)", f"{key.meaning} [{key.kind}]", style=None)
        out.print(table)
