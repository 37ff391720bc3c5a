"""The files of a source on this machine: a single file, or those of a folder in the order of their names.

Links are followed wherever they lead, as in a hub cache, whose snapshots are links to blobs beside them: the folder is
the user's own. Hidden files and folders (`.git`, `.ipynb_checkpoints`) are passed over unless a pattern names them.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from deepseek.errors import DataError
from deepseek.training.data.members import LAYERS, Member, Wanted


def files_below(path: Path, wanted: Wanted) -> Iterator[Member]:
    """Members that are read when they are asked for. Raises DataError for a path or link that leads nowhere."""
    if path.is_file():
        yield Member(_plain_name(path.name), path)
        return
    if not path.is_dir():
        raise DataError(f"{path}: there is no such file or folder; check path in the recipe")
    for name in names_below(path, wanted):
        file = path / name
        if file.is_symlink() and not file.exists():
            raise DataError(
                f"{file}: is a link to {os.readlink(file)}, which is not there; restore that file, or leave the link "
                f'out: exclude = ["{name}"]'
            )
        if file.is_file():
            yield Member(_plain_name(name), file)


def names_below(folder: Path, wanted: Wanted) -> list[str]:
    """Wanted names in alphabetical order. With `os.scandir`: a Path for each of a hundred thousand files is slow."""
    found: list[str] = []
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(folder),))]
    while waiting:
        inner, above = waiting.pop()
        try:
            entries = list(os.scandir(folder / inner))
        except OSError as error:
            raise DataError(f"{folder / inner}: cannot be listed ({error.strerror}); change its permissions") from None
        for entry in entries:
            name = f"{inner}/{entry.name}" if inner else entry.name
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in above and _may_hold(name, wanted):  # a link to a folder above would have no end
                    waiting.append((name, (*above, real)))
            elif name in wanted and (not _is_hidden(name) or wanted.takes_hidden(name)):
                found.append(name)
    return sorted(found)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or "/." in name


def _may_hold(folder: str, wanted: Wanted) -> bool:
    """Hidden folders are entered only where a pattern begins with their name."""
    return not _is_hidden(folder) or any(p.startswith(f"{folder}/") or "/." in p for p in wanted.members)


def _plain_name(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in LAYERS if name.endswith(suffix)), name)
