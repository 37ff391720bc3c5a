"""`deepseek verify`: every byte of a model's files and stores read again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepseek.cli import options
from deepseek.cli.console import out, print_json, progress_bars
from deepseek.cli.pack import facts
from deepseek.hub import DEFAULT_MODEL
from deepseek.hub.cache import in_units

if TYPE_CHECKING:
    from deepseek.progress import Report


def verify(
    model: Annotated[str, typer.Argument(help="A model's name or path, or a packed store.")] = DEFAULT_MODEL,
    revision: options.Revision = None,
    allow_unknown_keys: options.AllowUnknownKeys = False,
    as_json: options.AsJson = False,
) -> None:
    """Read every byte of a model again: downloaded files against their hashes, packed stores against their checksums.

    A downloaded file that is damaged is fetched again; a damaged store is an error that names its tensors. Of local
    files no hashes are known: their headers, names, shapes and types are checked.

    Examples:

        deepseek verify

        deepseek verify v2-lite-chat

        deepseek verify my-model.packed --json
    """
    with progress_bars() as report:
        results = _verified(model, revision, allow_unknown_keys, report)
    if as_json:
        print_json(results)
        return
    for result in results:
        out.print(result["path"], markup=False, soft_wrap=True)
        out.print(f"{in_units(result['bytes'])}: {result['checked']}", style="dim", markup=False)


def _verified(model: str, revision: str | None, allow_unknown: bool, report: "Report") -> list[dict[str, Any]]:
    """What was found whole. Raises DeepseekError at the first thing that is not."""
    from deepseek.checkpoint.packed import stores_of
    from deepseek.checkpoint.packed.reader import is_store
    from deepseek.cli.pull import size_of
    from deepseek.hub import resolve

    files = resolve(model, revision=revision, verify=True, report=report)
    if files.path.is_file() and is_store(files.path):
        return [_store(files.path, report)]
    checked = (
        "every byte is the one that was downloaded" if files.source != "local" else _opened(files.path, allow_unknown)
    )
    source = {"path": str(files.path), "bytes": size_of(files.path), "checked": checked}
    return [source, *(_store(path, report) for path in stores_of(files.path))]


def _opened(path: Path, allow_unknown: bool) -> str:
    from deepseek.checkpoint.checkpoint import open_checkpoint

    with open_checkpoint(path, allow_unknown=allow_unknown) as checkpoint:
        return f"headers and all {len(checkpoint.names()):,} weights fit; local files have no hashes to compare with"


def _store(path: Path, report: "Report") -> dict[str, Any]:
    from deepseek.checkpoint.packed import open_store, verify_store

    store = open_store(path)
    verify_store(store, report=report)
    return {**facts(store), "checked": f"a packed store, all {len(store.tensors):,} checksums are right"}
