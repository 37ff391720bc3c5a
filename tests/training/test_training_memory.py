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
def faults():
    return int(open("/proc/self/stat").read().split()[9])
def step():
    kept = [torch.ones(1 << 21) for _ in range(12)]
step()
before = faults()
for _ in range(5):
    step()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_used_again() -> None:
    def faults(argument: str) -> int:
        command = [sys.executable, "-c", SCRIPT, argument]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("keep") < 0.5 * faults("default")
