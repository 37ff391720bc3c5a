"""Files that a checkpoint names: they must lie in its folder."""

from pathlib import Path, PurePosixPath, PureWindowsPath

from deepseek.errors import CheckpointError


def is_plain_name(name: str) -> bool:
    """Whether `name` is one part of a path on every system: no folder, no drive, no `..`, nothing unprintable."""
    one_part = PurePosixPath(name).name == name == PureWindowsPath(name).name
    return one_part and name.isprintable() and name not in ("", ".", "..")


def confined_file(folder: Path, name: str) -> Path:
    """The file `name` of `folder`. Raises CheckpointError when it is missing or lies elsewhere.

    Symbolic links may lead within the folder and, as in the cache of huggingface_hub, from `NAME/snapshots/REVISION/`
    to `NAME/blobs/`. Any other link is refused.
    """
    path = folder / name
    if not is_plain_name(name):
        raise CheckpointError(f"{folder}: file name {name[:80]!r} leaves the folder; only plain names are allowed")
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise CheckpointError(f"{path}: file is missing; fetch the checkpoint again") from None
    home = folder.resolve()
    if not real.is_relative_to(home) and real.parent not in _blobs(folder):
        raise CheckpointError(
            f"{path}: the symbolic link leaves the folder (to {real}); open the real folder or copy the file"
        )
    if not real.is_file():
        raise CheckpointError(f"{path}: not a regular file")
    return path


def _blobs(folder: Path) -> list[Path]:
    """Where the cache of huggingface_hub keeps what a snapshot's links lead to."""
    absolute = [folder.absolute(), folder.resolve()]
    return [(at.parent.parent / "blobs").resolve() for at in absolute if at.parent.name == "snapshots"]
