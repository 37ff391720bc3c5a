"""How much memory this process may still take: what the system has, and what limits leave of it.

In a container the system's figure is the whole machine's; who goes by it is killed. So the limits of control groups
(both versions, all levels) and of the process count too.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import resource

_UNLIMITED = 1 << 60  # version 1 says "no limit" with a very large number
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that can be taken without swapping or being killed; where nothing tells, half of all memory.

    root: where /proc and /sys are.
    """
    known = [_of_system(root), *_of_groups(root), _of_process(root)]
    least = min((free for free in known if free is not None), default=None)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if least is None else max(0, least)


def _of_system(root: Path) -> int | None:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _of_groups(root: Path) -> Iterator[int]:
    """What each group that holds this process leaves, from its own up to the topmost."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, kinds, path = line.split(":", 2)
        tops: tuple[Path, ...]
        if kinds == "":
            tops, names = (root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"), _VERSION_2
        elif "memory" in kinds.split(","):
            tops, names = (root / "sys/fs/cgroup/memory",), _VERSION_1
        else:
            continue
        for top in tops:
            folder = top / path.lstrip("/")
            for level in (folder, *folder.parents):
                if not level.is_relative_to(top):
                    break
                if (free := _of_group(level, *names)) is not None:
                    yield free


def _of_group(folder: Path, limit_name: str, used_name: str, cached_name: str) -> int | None:
    limit, used = _text(folder / limit_name).strip(), _text(folder / used_name).strip()
    if not limit.isdecimal() or not used.isdecimal() or int(limit) >= _UNLIMITED:
        return None
    cached = 0  # pages of files, which the group gives back when it needs the room
    for line in _text(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == cached_name:
            cached = int(value)
    return int(limit) - int(used) + cached


def _of_process(root: Path) -> int | None:
    if sys.platform == "win32":
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _text(root / "proc/self/statm").split()
    if limit == resource.RLIM_INFINITY or not pages:
        return None
    return limit - int(pages[0]) * os.sysconf("SC_PAGE_SIZE")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
