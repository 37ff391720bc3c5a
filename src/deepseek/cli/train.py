"""`deepseek train`: a recipe, or a folder of text, becomes a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepseek.cli import options
from deepseek.cli.console import err, print_json, progress_bars
from deepseek.cli.session import require_torch
from deepseek.errors import ConfigError

if TYPE_CHECKING:
    from deepseek.progress import Report
    from deepseek.training.recipe import Recipe
    from deepseek.training.trainer import Trainer


def train(
    recipe: Annotated[
        Path | None,
        typer.Argument(help="A TOML file (see recipes/ and docs/training.md), or a run on text. Not with --text."),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option("--text", help="File or folder of text to train on, without a recipe; repeatable."),
    ] = None,
    size: Annotated[
        float | None, typer.Option(help="Million parameters of the mixture of experts; all else follows.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps of the first stage.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Instead of --steps: as many as take so long here, measured first.")
    ] = None,
    run: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; by default runs/NAME.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in that folder; without one, begin it.")
    ] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe; repeatable.")
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="List every key of a recipe with default and meaning.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be trained; prepare and train nothing.")
    ] = False,
    allow_unknown_keys: options.AllowUnknownKeys = False,
    as_json: options.AsJson = False,
) -> None:
    """Train a model on a folder of text, or by a recipe: prepare the data, train, evaluate, save.

    With --text, vocabulary, model, steps and held-out share follow from the size of the text; the recipes that say so
    are written into the run folder. Ctrl-C or SIGTERM finishes the step, saves and leaves; --resume continues with the
    same numbers, also after a kill. The checkpoints in RUN/checkpoints are ordinary models, for generate and serve.

    Examples:

        deepseek train --text my-texts --size 5

        deepseek train --text book.txt --minutes 30 --out runs/book

        deepseek train recipes/tiny-moe.toml --size 60 --set optimizer.name=adamw --out runs/adamw

        deepseek train recipes/tiny-moe.toml --resume
    """
    from deepseek.cli import train_output as output

    if keys:
        output.print_keys(as_json=as_json)
        return
    require_torch()
    if steps is not None and minutes is not None:
        raise ConfigError("--steps and --minutes: only one of them says how long the run is")
    allowed = ["model.allow_unknown_keys=true"] if allow_unknown_keys else []
    wanted = _Wanted(recipe, text or [], size, steps, minutes, run, resume, [*(changes or []), *allowed])
    if dry_run:
        facts, lines = wanted.described()
        print_json(facts) if as_json else err.print("\n".join(lines), markup=False, soft_wrap=True)
        return
    with progress_bars() as report:
        trainer = wanted.trainer(report)
    command = wanted.resume_command()
    output.train_and_print(trainer, resume=resume, as_json=as_json, command=command)


class _Wanted:
    """What the command line asks for. Raises ConfigError or DataError for what cannot be trained."""

    def __init__(
        self,
        recipe: Path | None,
        text: Sequence[Path],
        size: float | None,
        steps: int | None,
        minutes: float | None,
        run: Path | None,
        resume: bool,
        changes: Sequence[str],
    ) -> None:
        if (recipe is None) == (not text):
            raise ConfigError(
                "give a recipe (deepseek train recipes/smoke.toml) or text (deepseek train --text FOLDER)"
                + (", not both" if text else "")
            )
        from deepseek.training import text_run

        recipe, run = recipe and recipe.expanduser(), run and run.expanduser()
        if recipe and recipe.is_dir():
            recipe, run = _recipe_of_run(recipe), run or recipe
        self._recipe = recipe
        self._size, self._steps, self._minutes, self._resume, self._changes = size, steps, minutes, resume, changes
        self._given_text, self._given_run = text, run
        self._text = text_run.find_text([path.expanduser() for path in text]) if text and not self._goes_on() else None
        self.folder = self._run_folder()

    def _run_folder(self) -> Path:
        if self._given_run:
            return self._given_run
        if self._recipe:
            return Path("runs") / self._read(self._recipe).name
        return Path("runs") / (self._text.name if self._text else _name_of(self._given_text[0]))

    def _goes_on(self) -> bool:
        """A run on text that is resumed: its own recipe counts, and the text may be gone."""
        folder = self._given_run or Path("runs") / _name_of(self._given_text[0])
        return self._resume and (folder / "recipe.toml").exists()

    def _read(self, path: Path, steps: int | None = None) -> "Recipe":
        from deepseek.training.recipe_file import read_recipe

        sized = [] if self._size is None or self._text else [f"model.size={self._size}"]
        return read_recipe(path, changes=[*self._changes, *sized], steps=steps or self._steps)

    def _check_folder(self) -> None:
        """Before anything is prepared, which may take long."""
        from deepseek.training.run_folder import RunFolder

        if not self._resume:
            RunFolder(self.folder).check_new()

    def trainer(self, report: "Report") -> "Trainer":
        """Data prepared, recipes written."""
        from deepseek.training.memory import keep_freed_memory
        from deepseek.training.prepared import data_of_run
        from deepseek.training.run_folder import RunFolder
        from deepseek.training.trainer import Trainer

        self._check_folder()
        keep_freed_memory()
        path = self._written(report) if self._text else self._recipe or self.folder / "recipe.toml"
        begun = RunFolder(self.folder).read_run() if self._resume else {}
        before = begun.get("recipe", {}).get("stage", {}).get("steps") if self._minutes else None
        recipe = self._read(path, before)
        data, unchanged = data_of_run(recipe.data, begun.get("data"), report=report)
        if not unchanged:
            told = "recipe or text of the data have changed since the run began; it keeps the data it began with"
            err.print(told, soft_wrap=True)
        trainer = Trainer(recipe, self.folder, data, report=report)
        if self._minutes is None or before:
            return trainer
        from deepseek.training.text_run import steps_in

        steps = steps_in(self._minutes, trainer.recipe, trainer.plan)
        if self._text:
            path = self._written(report, steps)
        return Trainer(self._read(path, steps), self.folder, data, report=report)

    def _written(self, report: "Report", steps: int | None = None) -> Path:
        """The recipe of a run on text, written once the text is prepared and known."""
        from deepseek.training import text_run
        from deepseek.training.data.batches import read_dataset
        from deepseek.training.prepared import prepared_data
        from deepseek.training.recipe import DataTable
        from deepseek.training.recipe_file import change_values

        assert self._text is not None
        data = text_run.data_recipe(self._text)
        text_run.write_recipes(self.folder, data)
        dataset = read_dataset(prepared_data(DataTable(recipe=str(self.folder / text_run.DATA_RECIPE)), report=report))
        values = text_run.run_recipe(
            _name_of(self.folder),
            self._text,
            vocab_size=dataset["vocab_size"],
            train_tokens=sum(source["train_tokens"] for source in dataset["sources"].values()),
            size=self._size,
            steps=steps or self._steps,
        )
        change_values(values, self._changes)
        text_run.write_recipes(self.folder, data, values)
        return self.folder / text_run.RUN_RECIPE

    def described(self) -> tuple[dict[str, Any], list[str]]:
        """For --dry-run: as JSON and as lines; nothing is prepared."""
        from deepseek.cli.train_output import facts_of, lines_of
        from deepseek.training.prepared import described_data
        from deepseek.training.trainer import planned, with_device_precision

        if self._text:
            recipe, plan, data = self._planned_on_text()
        else:
            recipe = self._read(self._recipe or self.folder / "recipe.toml")
            plan = planned(recipe)
            data = described_data(recipe.data, plan.tokens)
        recipe = with_device_precision(recipe, self.folder)
        return facts_of(recipe, plan, self.folder, data), lines_of(recipe, plan, data)

    def _planned_on_text(self) -> tuple["Recipe", Any, dict[str, Any]]:
        from deepseek.training import text_run
        from deepseek.training.plan import make_plan
        from deepseek.training.recipe import Recipe
        from deepseek.training.recipe_file import change_values

        assert self._text is not None
        vocab_size = text_run.data_recipe(self._text)["tokenizer"]["vocab_size"]
        tokens = round(self._text.size / text_run.BYTES_PER_TOKEN)
        values = text_run.run_recipe(
            _name_of(self.folder),
            self._text,
            vocab_size=vocab_size,
            train_tokens=max(tokens, text_run.MIN_TEXT),
            size=self._size,
            steps=self._steps,
        )
        change_values(values, self._changes)
        recipe = Recipe.from_dict(values)
        plan = make_plan(recipe, vocab_size)
        where = ", ".join(map(str, self._text.paths))
        state = f"{where}: about {tokens:,} tokens, {plan.tokens / max(1, tokens):,.1f} passes; not prepared yet"
        return recipe, plan, {"described": state, "train_tokens": tokens, "passes": plan.tokens / max(1, tokens)}

    def resume_command(self) -> str:
        """The whole line that continues this run."""
        from shlex import join

        text = [word for path in self._given_text for word in ("--text", str(path))]
        words = ["deepseek", "train", *([str(self._recipe)] if self._recipe else text), "--out", str(self.folder)]
        if self._size is not None:
            words += ["--size", f"{self._size:g}"]
        if self._steps is not None:
            words += ["--steps", str(self._steps)]
        if self._minutes is not None:
            words += ["--minutes", f"{self._minutes:g}"]
        words += [word for change in self._changes for word in ("--set", change)]
        return join([*words, "--resume"])


def _recipe_of_run(folder: Path) -> Path:
    """A run on text wrote the recipe that it was trained by."""
    recipe = folder / "recipe.toml"
    if recipe.exists():
        return recipe
    raise ConfigError(
        f"{folder} is a folder without recipe.toml: give a recipe (to continue a run: RECIPE --out {folder} --resume), "
        f"or train on a folder of text with --text {folder}"
    )


def _name_of(path: Path) -> str:
    import re

    return re.sub(r"[^A-Za-z0-9]+", "-", path.expanduser().absolute().stem).strip("-").lower() or "text"
