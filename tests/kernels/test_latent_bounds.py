"""Latent attention touches no memory beyond its buffers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(sys.platform == "win32", reason="mprotect")
def test_memory_ends_at_a_closed_page() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE), os.environ.get("PYTHONPATH", "")))}
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", HERE / "latent_bounds.py"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "within bounds\n", done.stderr
