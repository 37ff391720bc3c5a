"""Where compiled kernels are kept between processes. Import this before anything that compiles.

Numba notices an edit of the file that holds a function, but not of what that function calls: with its own cache an
edited intrinsic would go on running as it was. So the folder's name is a hash of all kernel sources, of the versions
and of the processor, and its content is never stale. The cache holds pickles, so the folder must be ours alone.
"""

import atexit
import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import llvmlite
import numba
from numba.core import config

from deepseek.hub.cache import cache_folder
from deepseek.kernels.tier import TIER, cpu_name, features

_FORGET_AFTER_SECONDS = 30 * 86400


def fingerprint() -> str:
    """Changes whenever compiled code could."""
    digest = hashlib.blake2b(digest_size=12)
    folder = Path(__file__).parent
    for path in sorted((*folder.rglob("*.py"), folder.parent / "packing.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    for fact in (sys.version, numba.__version__, llvmlite.__version__, cpu_name(), TIER, *sorted(features())):
        digest.update(fact.encode() + b"\0")
    return digest.hexdigest()


def use_private_cache() -> Path:
    """Point Numba at this version's folder, made if absent. Where none can be made, at a temporary one."""
    parent = cache_folder() / "kernels"
    folder = parent / fingerprint()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if not _is_private(folder):
            raise PermissionError(f"{folder} is open to other users")
        os.utime(folder)
        _forget_old(parent, folder)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="deepseek-kernels-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    config.CACHE_DIR = str(folder)
    return folder


def is_warm() -> bool:
    """Whether an earlier process compiled something for exactly this version."""
    return any(CACHE.iterdir())


def _is_private(folder: Path) -> bool:
    if sys.platform == "win32":
        return True
    status = folder.lstat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o077 and not folder.is_symlink()


def _forget_old(parent: Path, current: Path) -> None:
    """Remove folders of versions that nobody has used for a month."""
    for other in parent.iterdir():
        with contextlib.suppress(OSError):  # another process may be removing it too
            if other != current and time.time() - other.stat().st_mtime > _FORGET_AFTER_SECONDS:
                shutil.rmtree(other, ignore_errors=True)


CACHE = use_private_cache()
