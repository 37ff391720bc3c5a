"""What a process may still take, where control groups limit it. Trees of files stand in for the kernel's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deepseek.engine.free_memory import free_memory

MEGABYTE = 1 << 20


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


SYSTEM = {"proc/meminfo": "MemTotal: 999 kB\nMemAvailable: 4096 kB\n", "proc/self/statm": "100 1 1\n"}


def test_without_groups_it_is_the_systems(tmp_path: Path) -> None:
    assert free_memory(write(tmp_path, SYSTEM)) == 4 * MEGABYTE


@pytest.mark.parametrize("limited", ["a/b", "a", ""])
def test_the_tightest_level_counts(tmp_path: Path, limited: str) -> None:
    groups = {
        f"sys/fs/cgroup/{level}/{name}".replace("//", "/"): text
        for level in ("", "a", "a/b")
        for name, text in {
            "memory.max": f"{3 * MEGABYTE}\n" if level == limited else "max\n",
            "memory.current": f"{2 * MEGABYTE}\n",
            "memory.stat": f"anon 5\ninactive_file {MEGABYTE}\n",
        }.items()
    }
    root = write(tmp_path, {**SYSTEM, **groups, "proc/self/cgroup": "0::/a/b\n"})
    assert free_memory(root) == 2 * MEGABYTE


def test_groups_of_the_first_version(tmp_path: Path) -> None:
    group = {
        "memory.limit_in_bytes": str(MEGABYTE), "memory.usage_in_bytes": str(2 * MEGABYTE),
        "memory.stat": f"total_inactive_file {MEGABYTE // 2}\n",
    }  # fmt: skip
    files = {f"sys/fs/cgroup/memory/x/{name}": text for name, text in group.items()}
    top = {"sys/fs/cgroup/memory/memory.limit_in_bytes": str((1 << 63) - 4096),
           "sys/fs/cgroup/memory/memory.usage_in_bytes": "1"}  # fmt: skip
    root = write(tmp_path, {**SYSTEM, **files, **top, "proc/self/cgroup": "4:memory:/x\n1:cpu:/y\n0::/\n"})
    assert free_memory(root) == 0  # more is used than allowed: never below nothing


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_the_limit_of_the_process_counts() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30));"
        "from deepseek.engine.free_memory import free_memory; print(free_memory())"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    ).stdout
    assert 0 < int(told) < 2 << 30
