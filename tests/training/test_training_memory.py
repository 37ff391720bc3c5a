"""What a process frees stays its own once it was told so."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import torch
from deepseek.training.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def resident():
    return int(open("/proc/self/statm").read().split()[1])
before = resident()
held = [torch.ones(1 << 21) for _ in range(12)]
grown = resident() - before
del held
print((resident() - before) / grown)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_stays_with_the_process() -> None:
    def share_kept(argument: str) -> float:
        command = [sys.executable, "-c", SCRIPT, argument]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert share_kept("default") < 0.2
    assert share_kept("keep") > 0.8
