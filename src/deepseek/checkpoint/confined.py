"""Files that a checkpoint names: they must lie in its folder."""

from pathlib import Path, PurePosixPath, PureWindowsPath

from deepseek.errors import CheckpointError


def is_plain_name(name: str) -> bool:
    """Whether `name` is one part of a path on every system: no folder, no drive, no `..`, nothing unprintable."""
    one_part = PurePosixPath(name).name == name == PureWindowsPath(name).name
    return one_part and name.isprintable() and name not in ("", ".", "..")


def confined_file(folder: Path, name: str) -> Path:
    """The file `name` of `folder`. Raises CheckpointError when it is missing, or is named by a path.

    A symbolic link may lead anywhere: whoever owns the folder made it, and large weights often lie on another disk.
    """
    path = folder / name
    if not is_plain_name(name):
        raise CheckpointError(f"{folder}: file name {name[:80]!r} leaves the folder; only plain names are allowed")
    try:
        path.resolve(strict=True)
    except (OSError, RuntimeError):
        broken = " (a symbolic link that leads nowhere)" if path.is_symlink() else ""
        raise CheckpointError(f"{path}: file is missing{broken}; fetch the checkpoint again") from None
    if not path.is_file():
        raise CheckpointError(f"{path}: not a regular file")
    return path
