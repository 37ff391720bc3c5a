"""`deepseek perplexity`: how well a model predicts a text."""

from pathlib import Path
from typing import Annotated

import typer

from deepseek.cli import options
from deepseek.cli.console import out, print_json, progress_bars


def perplexity(
    file: Annotated[Path, typer.Argument(help="A text in UTF-8.")],
    model: Annotated[str | None, typer.Option(help="Folder, .gguf file or name; without one the default.")] = None,
    window: Annotated[int, typer.Option(min=2, help="Tokens that are read together; windows do not overlap.")] = 512,
    windows: Annotated[int | None, typer.Option(min=1, help="Stop after so many windows.")] = None,
    threads: options.Threads = None,
    activation_bits: options.ActivationBits = None,
    kv_cache_dtype: options.CacheDtype = "auto",
    revision: options.Revision = None,
    allow_unknown_keys: options.AllowUnknownKeys = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure how well a model predicts a text: the perplexity over all its tokens, the lower the better.

    The text is cut into windows that do not overlap, each beginning with the model's BOS token where it has one; every
    token of a window but the first is predicted from those before it. What is left over at the end is not scored.

    Examples:

        deepseek perplexity book.txt

        deepseek perplexity book.txt --model ./my-model --window 2048 --json
    """
    from deepseek.hub import DEFAULT_MODEL, resolve
    from deepseek.profiler import perplexity as measure
    from deepseek.profiler.engine_side import EngineSide

    with progress_bars() as report:
        path = resolve(model or DEFAULT_MODEL, revision=revision, report=report).path
        cut = measure.text_windows(file, path, length=window, most=windows)
        side = EngineSide(
            path,
            threads=threads,
            settings={
                "activation_bits": activation_bits,
                "kv_cache_dtype": kv_cache_dtype,
                "allow_unknown_keys": allow_unknown_keys,
            },
            report=report,
        )
        try:
            losses = measure.score(cut, side, report=report)
        finally:
            side.close()
    value, error = measure.perplexity(losses), measure.standard_error(losses)
    if as_json:
        facts = {"perplexity": value, "standard_error": error, "scored_tokens": len(losses)}
        print_json(facts | {"windows": len(cut), "window": window, "model": str(path), "file": str(file)})
    else:
        out.print(f"perplexity {value:.4f} ± {error:.4f}", end="  ")
        out.print(f"[dim]{len(losses):,} tokens in {len(cut):,} windows of {window:,}[/]")
