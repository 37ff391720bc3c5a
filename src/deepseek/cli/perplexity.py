"""`deepseek perplexity`: how well a model predicts a text."""

from pathlib import Path
from typing import Annotated

import typer

from deepseek.cli import options
from deepseek.cli.console import counted, out, print_json, progress_bars
from deepseek.errors import DeepseekError


def perplexity(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"{options.MODEL_HELP}; may be left out.")],
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="A text in UTF-8.")] = None,
    window: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Tokens read together, without overlap; by default 512 or the context."),
    ] = None,
    windows: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after so many windows.")] = None,
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

        deepseek perplexity ./my-model book.txt --window 2048 --json
    """
    from deepseek.hub import DEFAULT_MODEL, resolve
    from deepseek.profiler import perplexity as measure
    from deepseek.profiler.engine_side import EngineSide

    name, text = (model, file) if file is not None else (DEFAULT_MODEL, Path(model))
    if text.is_dir():
        raise DeepseekError(f"{text} is a folder and not a text: write deepseek perplexity MODEL FILE")
    measure.text_of(text)
    with progress_bars() as report:
        path = resolve(name, revision=revision, report=report).path
        window = window or measure.default_window(path, allow_unknown=allow_unknown_keys)
        cut = measure.text_windows(text, path, length=window, most=windows)
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
        print_json(facts | {"windows": len(cut), "window": window, "model": str(path), "file": str(text)})
    else:
        out.print(f"perplexity {value:.4f} ± {error:.4f}", end="  ")
        out.print(f"[dim]{counted(len(losses), 'token')} in {counted(len(cut), 'window')} of {window:,}[/]")
