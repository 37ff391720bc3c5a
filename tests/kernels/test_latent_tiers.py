"""Latent attention gives the same bits on every tier of instructions, each in a process of its own."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from latent_digests import digests

HERE = Path(__file__).parent
TIERS = {"avx2": ("haswell", "+avx,+avx2,+fma,+f16c"), "generic": ("x86-64", "+sse2")}


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="tiers of x86-64")
@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_gives_the_bits_of_this_process(tier: str, tmp_path: Path) -> None:
    name, features = TIERS[tier]
    if not llvm.get_host_cpu_features().get(tier, True):
        pytest.skip(f"this processor has no {tier}")
    environment = {
        **os.environ, "NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features,
        "DEEPSEEK_CACHE": str(tmp_path), "PYTHONPATH": str(HERE),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, HERE / "latent_digests.py"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"tier": tier, **digests()}
