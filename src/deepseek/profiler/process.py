"""What a process and its neighbours take of the machine, as Linux tells it; elsewhere "not known" (None)."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")


def memory_of(pid: int | str = "self") -> dict[str, int] | None:
    """Bytes in memory. resident: all; private: of them what is not a file's; peak: the most that was resident."""
    try:
        text = (_PROC / str(pid) / "status").read_text()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines())
    names = {"resident": "VmRSS", "private": "RssAnon", "peak": "VmHWM"}
    return {name: int(fields[field].split()[0]) * 1024 for name, field in names.items() if field in fields}


def forget_cached(path: Path) -> None:
    """Ask the system to drop the pages of a file, so that the next reader waits for the disk."""
    if not hasattr(os, "posix_fadvise"):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


class Neighbours:
    """How busy others keep the processors: what `pids` and this process use does not count."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids: tuple[int | str, ...] = ("self", *pids)
        self._begun = time.perf_counter()
        self._before = self._used_by_others()

    def share(self) -> float | None:
        """Of all processors, from 0 to 1, since this object was made."""
        now = self._used_by_others()
        if now is None or self._before is None:
            return None
        available = (time.perf_counter() - self._begun) * os.sysconf("SC_CLK_TCK") * (os.cpu_count() or 1)
        return min(1.0, max(0, now - self._before) / max(available, 1))

    def _used_by_others(self) -> int | None:
        """Clock ticks since the machine started."""
        try:
            busy = [int(field) for field in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:]]
            own = sum(_ticks_of(pid) for pid in self._pids)
        except OSError:
            return None
        user, nice, system, _, _, irq, softirq, steal = busy[:8]
        return user + nice + system + irq + softirq + steal - own


def _ticks_of(pid: int | str) -> int:
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
