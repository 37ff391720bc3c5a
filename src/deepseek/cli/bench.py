"""`deepseek bench`: how fast a model runs here, alone or beside llama.cpp."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepseek.cli import options
from deepseek.cli.console import err, out, print_json, progress_bars
from deepseek.errors import DeepseekError

if TYPE_CHECKING:
    from deepseek.profiler.comparison import Row
    from deepseek.profiler.measurement import Measurement

BUSY = 0.1  # above this share of the processors in others' hands, figures are not to be trusted


def bench(
    model: options.ModelName = None,
    against: Annotated[str | None, typer.Option(help="`llama.cpp`: the same work there, in turns.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and shorter rows, three rounds.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this row: prompt-512, decode-64, together-16 ...; may be repeated.")
    ] = None,
    text: Annotated[Path | None, typer.Option(help="Also the perplexity on this text, for every side.")] = None,
    windows: Annotated[int, typer.Option(min=1, help="Windows of that text, of 512 tokens or the context.")] = 100,
    threads: options.Threads = None,
    activation_bits: options.ActivationBits = 8,
    kv_cache_dtype: options.CacheDtype = "auto",
    rounds: Annotated[int | None, typer.Option(min=1, help="Of every row; 5, or 3 with --quick.")] = None,
    revision: options.Revision = None,
    allow_unknown_keys: options.AllowUnknownKeys = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the JSON line.")] = False,
) -> None:
    """Measure a model's speed, memory and perplexity, also against llama.cpp: a table and one line of JSON.

    Speculation and the prefix cache are off, and activations have 8 bits, as in llama.cpp. Each side works in a process
    of its own and they take turns, round by round; llama.cpp first tries which of its settings suit each row. "of
    limit" is the share of what the machine's memory can deliver, measured in the same rounds.

    Examples:

        deepseek bench --quick

        deepseek bench model.gguf --against llama.cpp --text book.txt
    """
    from deepseek.hub import DEFAULT_MODEL, resolve
    from deepseek.kernels.team import default_threads
    from deepseek.profiler.comparison import QUICK_ROUNDS, ROUNDS
    from deepseek.profiler.measurement import THEIRS, measure
    from deepseek.profiler.perplexity import default_window, text_windows

    if against is not None:
        _check_opponent(against, THEIRS)
    with progress_bars() as report:
        path = resolve(model or DEFAULT_MODEL, revision=revision, report=report).path
        length = default_window(path, allow_unknown=allow_unknown_keys)
        result = measure(
            path,
            quick=quick,
            only=only or (),
            against=against is not None,
            threads=threads or default_threads(),
            rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
            settings={
                "activation_bits": activation_bits,
                "kv_cache_dtype": kv_cache_dtype,
                "allow_unknown_keys": allow_unknown_keys,
            },
            windows=text_windows(text, path, length=length, most=windows) if text else (),
            report=report,
        )
    if not as_json:
        _print(result)
    print_json(record(result), indent=None)


def _check_opponent(against: str, known: str) -> None:
    from deepseek.profiler.llama_cpp import import_llama_cpp

    if against != known:
        raise DeepseekError(f"--against is {against!r}; the one that is known is {known}")
    import_llama_cpp()


def record(result: "Measurement") -> dict[str, Any]:
    """What the JSON line holds."""
    from deepseek.profiler.measurement import versions

    size, limit = result.size, result.memory_limit()
    return {
        "benchmark": "bench",
        "model": Path(result.model).name,
        "versions": versions(),
        "sides": result.facts,
        "bits_per_weight": round(size.bits_per_weight, 3),
        "bytes_per_token": size.bytes_per_token,
        "memory_limit_gb_s": limit and round(limit / 1e9, 2),
        "loading": {
            side: {"cold_s": round(loading.cold, 3), "warm_s": round(loading.warm, 3), "memory": loading.memory}
            for side, loading in result.loading.items()
        },
        "memory_after_work": result.memory,
        "perplexity": {side: round(value, 4) for side, value in result.perplexities.items()},
        "scored_tokens": result.scored_tokens,
        "rows": [_row_record(row, result) for row in result.rows],
    }


def _row_record(row: "Row", result: "Measurement") -> dict[str, Any]:
    values: dict[str, Any] = {**row.work.to_dict(), "rounds": row.rounds, "neighbours": _rounded(row.neighbours, 3)}
    for side in result.sides:
        rates = sorted(timing.rate for timing in row.timings[side])
        values[side] = {
            "tokens_per_s": round(row.rate(side), 2),
            "lowest": round(rates[0], 2),
            "highest": round(rates[-1], 2),
            "decode_tokens_per_s": _rounded(row.decode_rate(side), 2),
            "share_of_limit": _rounded(row.share_of_limit(side, result.size.bytes_per_token), 3),
            "setting": row.settings[side],
        }
    if len(result.sides) == 2:
        values["ratio"] = round(row.ratio(*result.sides), 3)
        values["ratios"] = [round(ratio, 3) for ratio in row.ratios(*result.sides)]
    return values


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _print(result: "Measurement") -> None:
    from rich.table import Table

    size, limit = result.size, result.memory_limit()
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("tokens/s")
    for side in result.sides:
        table.add_column(side, justify="right")
        table.add_column("of limit", justify="right", style="dim")
    if len(result.sides) == 2:
        table.add_column("ratio", justify="right")
    for heading in ("bits/weight", "MB/token", *(["perplexity"] if result.perplexities else [])):
        table.add_column(heading, justify="right", style="dim")
    perplexities = " / ".join(f"{value:.3f}" for value in result.perplexities.values())
    for row in result.rows:
        cells = [row.work.name]
        for side in result.sides:
            share = row.share_of_limit(side, size.bytes_per_token)
            cells += [f"{row.rate(side):,.1f}", "" if share is None else f"{share:.0%}"]
        if len(result.sides) == 2:
            cells.append(f"{row.ratio(*result.sides):.2f}")
        cells += [f"{size.bits_per_weight:.2f}", f"{size.bytes_per_token / 1e6:,.1f}", perplexities]
        table.add_row(*cells[: len(table.columns)])
    out.print(table)
    for side, loading in result.loading.items():
        memory = (result.memory.get(side) or {}).get("resident")
        taken = "" if memory is None else f", {memory / 1e6:,.0f} MB in memory after the work"
        out.print(f"{side}: ready in {loading.cold:.2f} s cold, {loading.warm:.2f} s warm{taken}")
    if limit is not None:
        out.print(f"memory limit: {limit / 1e9:.1f} GB/s with {result.threads} threads, read in the same rounds")
    busy = max((row.neighbours or 0.0 for row in result.rows), default=0.0)
    if busy > BUSY:
        err.print(
            f"[yellow]other programs used up to {busy:.0%} of the processors: measure again on a quiet machine[/]"
        )
