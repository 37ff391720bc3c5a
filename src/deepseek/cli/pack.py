"""`deepseek pack`: the packed store of a model, made before it is needed or for another place."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepseek.cli import options
from deepseek.cli.console import out, print_json, progress_bars
from deepseek.cli.pull import NAME_HELP
from deepseek.errors import CheckpointError
from deepseek.hub import DEFAULT_MODEL
from deepseek.hub.cache import in_units

if TYPE_CHECKING:
    from deepseek.checkpoint.packed import PackedStore
    from deepseek.progress import Report


def pack(
    model: Annotated[str, typer.Argument(help=NAME_HELP)] = DEFAULT_MODEL,
    quantize: options.QuantizeWeights = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file of your own instead of one in the cache.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Pack again, replacing what is there.")] = False,
    revision: options.Revision = None,
    allow_unknown_keys: options.AllowUnknownKeys = False,
    as_json: options.AsJson = False,
) -> None:
    """Pack a model into the layout that the CPU engine maps into memory.

    The engine does this by itself at a model's first use. Q4_0, Q4_1, Q5 and Q8_0 keep every value. A store in the
    cache can be deleted at any time.

    Examples:

        deepseek pack

        deepseek pack deepseek-ai/DeepSeek-V2-Lite-Chat --quantize int4

        deepseek pack my-model/ --quantize int8 --output my-model.packed
    """
    from deepseek.checkpoint.packed.choose import quantize_named
    from deepseek.hub import resolve

    precision = quantize_named(quantize)
    with progress_bars() as report:
        path = resolve(model, revision=revision, report=report).path
        if output is None:
            store = _into_cache(path, precision, force, allow_unknown_keys, report)
        else:
            store = _into_file(path, output.expanduser(), precision, force, allow_unknown_keys, report)
    if as_json:
        print_json(facts(store))
    else:
        out.print(str(store.path), markup=False, soft_wrap=True)
        out.print(summary(store), style="dim", markup=False)


def facts(store: "PackedStore") -> dict[str, Any]:
    return {
        "path": str(store.path),
        "bytes": store.data.size,
        "tensors": len(store.tensors),
        "quantize": store.about.quantize,
        "source": store.about.source,
        "bytes_by_type": _bytes_by_type(store),
    }


def summary(store: "PackedStore") -> str:
    """`126.7 MB in 273 tensors: 51.2% int4-g32-affine, ...`: shares of the bytes."""
    sizes = _bytes_by_type(store)
    total = sum(sizes.values())
    shares = ", ".join(f"{size / total:.1%} {name}" for name, size in sizes.items())
    return f"{in_units(store.data.size)} in {len(store.tensors):,} tensors: {shares}"


def _bytes_by_type(store: "PackedStore") -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for tensor in store.tensors.values():
        sizes[tensor.type_name] += tensor.nbytes
    return dict(sizes.most_common())


def _into_cache(path: Path, quantize: Any, force: bool, allow_unknown: bool, report: "Report") -> "PackedStore":
    from deepseek.checkpoint.packed import ensure_packed, store_path

    if force:
        for passed_over in (False, True):
            store_path(path, quantize, passed_over=passed_over).unlink(missing_ok=True)
    return ensure_packed(path, quantize=quantize, allow_unknown=allow_unknown, report=report)


def _into_file(
    path: Path, output: Path, quantize: Any, force: bool, allow_unknown: bool, report: "Report"
) -> "PackedStore":
    from deepseek.checkpoint.checkpoint import open_checkpoint
    from deepseek.checkpoint.packed import open_store, write_store

    if output.is_dir() or not output.parent.is_dir():
        raise CheckpointError(f"{output} must name a file in a folder that exists")
    if output.exists() and not force:
        raise CheckpointError(f"{output} already exists; choose another file, or overwrite it (--force)")
    with open_checkpoint(path, allow_unknown=allow_unknown) as checkpoint:
        write_store(output, checkpoint, quantize=quantize, report=report)
    return open_store(output)
