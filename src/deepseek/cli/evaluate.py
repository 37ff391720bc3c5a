"""`deepseek evaluate`: how well a trained model predicts text it has not seen."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepseek.cli import options
from deepseek.cli.console import out, print_json, progress_bars
from deepseek.cli.session import require_torch
from deepseek.errors import ConfigError

if TYPE_CHECKING:
    from deepseek.models.decoder import Model
    from deepseek.progress import Report

_MICRO_BATCH = 8


def evaluate(
    model: Annotated[str, typer.Argument(help="Run folder, one of its checkpoints, or with --text any model.")],
    text: Annotated[
        list[Path] | None,
        typer.Option("--text", help="Text in UTF-8 instead of the run's held-out data; repeatable."),
    ] = None,
    batches: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many batches of each source; by default all are read.")
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=2, help="Tokens of a sequence; by default as in training, else 512.")
    ] = None,
    revision: options.Revision = None,
    allow_unknown_keys: options.AllowUnknownKeys = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure loss and perplexity of a trained model on the held-out text of its run, or on other text.

    The loss is in nats per token, of the next token only; the perplexity is its exponential. PyTorch computes, in
    float32. `deepseek perplexity` measures the engine, with quantized weights.

    Examples:

        deepseek evaluate runs/my-texts

        deepseek evaluate runs/my-texts/checkpoints/step-00000200 --json

        deepseek evaluate smollm2 --text book.txt
    """
    require_torch()
    from deepseek.hub import resolve
    from deepseek.models.auto import AutoModel
    from deepseek.training.run_folder import RunFolder, run_of

    run = run_of(Path(model).expanduser())
    if run is None and not text:
        raise ConfigError(f"{model} belongs to no run, so there is no held-out data: give text with --text FILE")
    with progress_bars() as report:
        is_run = run is not None and RunFolder(Path(model).expanduser()).exists
        path = run.newest_model() if run and is_run else resolve(model, revision=revision, report=report).path
        loaded = AutoModel.from_pretrained(path, dtype="float32", allow_unknown_keys=allow_unknown_keys, report=report)
        if text:
            losses = _of_files(loaded, path, text, length or min(512, loaded.config.max_position_embeddings), report)
            facts: dict[str, Any] = {"sources": losses}
        else:
            assert run is not None
            facts = _of_held_out(loaded, run.read_run(), batches, length, report)
    facts = {"model": str(path), **facts}
    print_json(facts) if as_json else _print(facts)


def _of_held_out(
    model: "Model", run: dict[str, Any], batches: int | None, length: int | None, report: "Report"
) -> dict[str, Any]:
    """By source, and their mean as they are mixed in training."""
    from deepseek.training.data import Batches
    from deepseek.training.evaluation import held_out_losses
    from deepseek.training.prepared import data_of_run, mixture_of
    from deepseek.training.recipe import Recipe

    recipe = Recipe.from_dict(run["recipe"])
    data, unchanged = data_of_run(recipe.data, run.get("data"), report=report)
    mixture = mixture_of(recipe.data, data)
    read = Batches(
        data,
        mixture,
        sequence_length=length or run["stages"][-1]["sequence_length"],
        batch_size=_MICRO_BATCH,
        seed=recipe.seed,
    )
    losses = held_out_losses(model, read, count=batches, micro_batch_size=_MICRO_BATCH)
    if not losses:
        raise ConfigError(f"{data}: no text is held out (held_out in the data recipe); give text with --text FILE")
    shares = {name: share for name, share in mixture.stages[-1].shares.items() if name in losses}
    mean = sum(losses[name] * share for name, share in shares.items()) / (sum(shares.values()) or 1)
    sources = {name: _entry(loss) for name, loss in losses.items()}
    return {"data": str(data), "text_unchanged": unchanged, "sources": sources, "mean": _entry(mean)}


def _of_files(
    model: "Model", path: Path, files: list[Path], length: int, report: "Report"
) -> dict[str, dict[str, float]]:
    from deepseek.profiler.perplexity import text_of
    from deepseek.tokenizer import AutoTokenizer
    from deepseek.training.evaluation import text_loss

    tokenizer = AutoTokenizer.from_pretrained(path)
    entries = {}
    for done, file in enumerate(files, 1):
        ids = tokenizer.encode(text_of(file.expanduser()), parse_special=False)
        loss, tokens = text_loss(model, ids, length=length, micro_batch_size=_MICRO_BATCH)
        if not tokens:
            raise ConfigError(f"{file}: has {len(ids)} tokens, which leaves none to predict; give a longer text")
        entries[str(file)] = {**_entry(loss), "tokens": tokens}
        report("evaluating", done, len(files), "files")
    return entries


def _entry(loss: float) -> dict[str, float]:
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}


def _print(facts: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("text")
    for name in ("loss", "perplexity"):
        table.add_column(name, justify="right")
    rows = {**facts["sources"], **({"mean": facts["mean"]} if len(facts["sources"]) > 1 and "mean" in facts else {})}
    for name, entry in rows.items():
        table.add_row(name, f"{entry['loss']:.4f}", f"{entry['perplexity']:,.2f}")
    out.print(table)
    if facts.get("text_unchanged") is False:
        out.print("the text has changed since the run began; this is what it held out then", style="dim")
