"""`deepseek train`: a recipe becomes a model."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepseek.cli import options
from deepseek.cli.console import LOG_EVERY_SECONDS, err, out, print_json, progress_bars
from deepseek.cli.session import require_torch

if TYPE_CHECKING:
    from rich.progress import Progress

    from deepseek.training.plan import Plan
    from deepseek.training.trainer import Outcome, Trainer


def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file; see recipes/ and docs/training.md.")],
    run: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; by default runs/NAME.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in that folder; without one, begin it.")
    ] = False,
    size: Annotated[
        float | None, typer.Option(help="The dial: million parameters of the mixture of experts; all else follows.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe; repeatable.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be trained; prepare and train nothing.")
    ] = False,
    allow_unknown_keys: options.AllowUnknownKeys = False,
    as_json: options.AsJson = False,
) -> None:
    """Train a model: prepare the data if need be, train, evaluate, save.

    Ctrl-C or SIGTERM finishes the step, saves and leaves; --resume goes on with the same numbers, also after a kill.
    The checkpoints in RUN/checkpoints are ordinary models: chat and serve take them.

    Examples:

        deepseek train recipes/smoke.toml

        deepseek train recipes/tiny-moe.toml --size 60 --set optimizer.name=adamw --out runs/adamw

        deepseek train recipes/tiny-moe.toml --resume
    """
    require_torch()
    from deepseek.training.memory import keep_freed_memory
    from deepseek.training.prepared import data_of_run
    from deepseek.training.recipe import read_recipe
    from deepseek.training.run_folder import RunFolder
    from deepseek.training.trainer import Trainer, planned

    allowed = ["model.allow_unknown_keys=true"] if allow_unknown_keys else []
    dialled = [] if size is None else [f"model.size={size}"]
    wanted = read_recipe(recipe.expanduser(), changes=[*(changes or []), *dialled, *allowed])
    folder = run.expanduser() if run else Path("runs") / wanted.name
    if dry_run:
        plan = planned(wanted)
        print_json(_facts(plan, folder)) if as_json else _print_facts(plan)
        return
    with progress_bars() as report:
        begun = RunFolder(folder).read_run().get("data") if resume else None
        data, unchanged = data_of_run(wanted.data, begun, report=report)
    if not unchanged:
        err.print("recipe or text of the data have changed since the run began; it keeps the data it began with")
    trainer = Trainer(wanted, folder, data)
    if not as_json:
        _print_facts(trainer.plan)
        err.print(f"data: {trainer.data_facts.folder}: {trainer.data_facts}", markup=False, soft_wrap=True)
        err.print(f"watch it: deepseek serve --runs {folder.parent}", markup=False, style="dim", soft_wrap=True)
    keep_freed_memory()
    watcher = _Watcher()
    try:
        outcome = trainer.run(watcher, resume=resume)
    finally:
        watcher.stop()
    if as_json:
        print_json({**_facts(trainer.plan, folder), **_outcome(outcome)})
    else:
        _print_outcome(outcome, trainer)
    if outcome.signal is not None:
        raise typer.Exit(128 + outcome.signal)


def _facts(plan: "Plan", folder: Path) -> dict[str, Any]:
    from deepseek.training.size import describe

    return {
        "run": str(folder),
        "model": {name.replace(" ", "_").replace("'", ""): value for name, value in describe(plan.config).items()},
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
    }


def _print_facts(plan: "Plan") -> None:
    from rich.table import Table

    from deepseek.training.size import describe

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in describe(plan.config).items():
        table.add_row(name, f"{value:,}", style=None if "parameters" in name else "dim")
    for stage in plan.stages:
        steps = stage.stop - stage.start
        table.add_row(
            f"stage {stage.name}",
            f"{steps:,} steps of {stage.batch_size} x {stage.sequence_length:,} tokens: "
            f"{steps * stage.tokens_per_step:,}; learning rate {stage.learning_rate:.2e}, {stage.schedule.name}",
        )
    err.print(table)


def _outcome(outcome: "Outcome") -> dict[str, Any]:
    return {
        "step": outcome.step,
        "trained_tokens": outcome.tokens,
        "loss": outcome.loss,
        "checkpoint": str(outcome.checkpoint) if outcome.checkpoint else None,
        "stopped_by_signal": outcome.signal,
    }


def _print_outcome(outcome: "Outcome", trainer: "Trainer") -> None:
    out.print(str(outcome.checkpoint), markup=False, soft_wrap=True)
    loss = "" if outcome.loss is None else f", loss {outcome.loss:.4f}"
    if outcome.signal is None:
        err.print(f"done: {outcome.tokens:,} tokens in {outcome.step:,} steps{loss}")
    else:
        err.print(f"stopped and saved after step {outcome.step:,} of {trainer.plan.steps:,}{loss}; go on with --resume")


class _Watcher:
    """A line that moves in a terminal; in a log a line now and then."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._logged = 0.0

    def step(self, record: Mapping[str, Any], plan: "Plan") -> None:
        told = (
            f"loss {record['main_loss']:.3f}  lr {record['learning_rate']:.1e}  "
            f"{record['tokens_per_second']:,.0f} tokens/s  {record['peak_share']:.0%} of peak"
        )
        if err.is_terminal:
            self._show(record["step"], plan.steps, told)
        elif time.monotonic() - self._logged >= LOG_EVERY_SECONDS:
            self._logged = time.monotonic()
            err.print(f"step {record['step']:,}/{plan.steps:,}  {told}", markup=False)

    def _show(self, step: int, steps: int, told: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        if self._bar is None:
            columns = (TextColumn("{task.completed:,}/{task.total:,}"), BarColumn(bar_width=20))
            self._bar = Progress(*columns, TextColumn("{task.description}"), TimeRemainingColumn(), console=err)
            self._bar.start()
            self._bar.add_task(told, total=steps)
        self._bar.update(self._bar.task_ids[0], completed=step, description=told)

    def note(self, text: str) -> None:
        err.print(text, markup=False, style="dim", soft_wrap=True)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
