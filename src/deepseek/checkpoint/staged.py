"""A folder's checkpoint replaced as a whole, although file systems rename only one file at a time.

New files are written into a folder of their own inside the target. When all of them are on the disk, renaming that
folder to `.deepseek-saved-*` is the moment from which the new checkpoint counts. Only then the files move up:
first the old entry points go (model.safetensors or the index), the new one comes last, so that no program finds a
mixture. If that is cut short, whoever opens or saves the folder next finishes it.
"""

import contextlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from deepseek.checkpoint.atomic import clear_disk_errors, sync_folder
from deepseek.checkpoint.weight_files import INDEX, SINGLE, shards_of

if sys.platform != "win32":
    import fcntl

_UNFINISHED, _FINISHED = ".deepseek-saving-", ".deepseek-saved-"
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")


@contextlib.contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """A new empty folder on the same disk. When the block ends well, its files are those of `folder`.

    Replaces files of the same name and removes every other weight file that Transformers would have written (shards of
    an earlier checkpoint); all else in `folder` stays. The block must leave either model.safetensors or the index, and
    sync the files it wrote. On an error, or a kill, the earlier checkpoint stays whole.
    """
    with clear_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        finish_interrupted_save(folder)
        _remove_abandoned(folder)
        stage = folder / (_UNFINISHED + secrets.token_hex(4))
        stage.mkdir()
        try:
            with _in_use(stage):
                yield stage
                _commit(stage, folder)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.rmdir()  # only if it is empty: it was made for this save
            raise


def _commit(stage: Path, folder: Path) -> None:
    sync_folder(stage)
    finished = folder / stage.name.replace(_UNFINISHED, _FINISHED)
    stage.rename(finished)
    sync_folder(folder)
    _move_up(finished, folder)


def finish_interrupted_save(folder: Path) -> None:
    """Complete a save that was cut short after all of it had been written. Harmless when there is none."""
    with clear_disk_errors(folder):
        for finished in sorted(folder.glob(_FINISHED + "*")):
            if finished.is_dir() and not finished.is_symlink():
                with contextlib.suppress(FileNotFoundError), _in_use(finished, wait=True):
                    _move_up(finished, folder)


def _move_up(stage: Path, folder: Path) -> None:
    """Can be cut short anywhere and repeated: while the entry point is in `stage`, it tells which files are new."""
    entry = next((name for name in (SINGLE, INDEX) if (stage / name).exists()), None)
    if entry is not None:
        new = {SINGLE} if entry == SINGLE else shards_of(stage)
        # Entry points go before shards, so that nothing ever points at a shard that is no longer there.
        old = sorted(folder.iterdir(), key=lambda path: path.name not in (SINGLE, INDEX))
        for path in old:
            if _WEIGHTS.fullmatch(path.name) and (path.name not in new or path.name == entry):
                path.unlink()
        for name in sorted(os.listdir(stage), key=lambda name: name == entry):
            os.replace(stage / name, folder / name)
        sync_folder(folder)
    shutil.rmtree(stage, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Stages of processes that were killed. A living process holds a lock on its own."""
    for stage in folder.glob(_UNFINISHED + "*"):
        if stage.is_dir() and not stage.is_symlink():
            with contextlib.suppress(OSError), _in_use(stage):
                shutil.rmtree(stage)


@contextlib.contextmanager
def _in_use(stage: Path, *, wait: bool = False) -> Iterator[None]:
    """Only one process at a time; unless `wait`, raises BlockingIOError when another has it. No lock on Windows."""
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(stage, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
