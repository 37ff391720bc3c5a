"""Every tier of instructions gives the same bits: the lower ones run in processes of their own, on any x86-64."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import pytest

import expert_digests
import latent_digests
import sampling_digests
import tier_vectors

HERE = Path(__file__).parent
TIERS = {"avx2": ("haswell", "+avx,+avx2,+fma,+f16c"), "generic": ("x86-64", "+sse2")}
# What each script prints beside its tier.
EXPECTED: dict[str, Callable[[], dict[str, Any]]] = {
    "tier_vectors.py": tier_vectors.digests,
    "expert_digests.py": expert_digests.digests,
    "latent_digests.py": latent_digests.digests,
    "sampling_digests.py": lambda: {"digest": sampling_digests.digest()},
}


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="tiers of x86-64")
@pytest.mark.parametrize("script", EXPECTED)
@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_gives_the_bits_of_this_process(tier: str, script: str, tmp_path: Path) -> None:
    name, features = TIERS[tier]
    if not llvm.get_host_cpu_features().get(tier, True):
        pytest.skip(f"this processor has no {tier}")
    environment = {
        **os.environ, "NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features,
        "DEEPSEEK_CACHE": str(tmp_path), "PYTHONPATH": os.pathsep.join((str(HERE), os.environ.get("PYTHONPATH", ""))),
    }  # fmt: skip
    done = subprocess.run([sys.executable, HERE / script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"tier": tier, **EXPECTED[script]()}
