"""A glance at the soak script: it runs, and nothing breaks in a few seconds."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "soak.py"


def test_a_few_seconds_at_twice_the_capacity(tiny_folder: Path) -> None:
    words = ["--minutes", "0.05", "--clients", "16", "--model", str(tiny_folder), "--", "--quantize", "f32"]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, timeout=300)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["wrong"] == []
    assert told["most_waiting"] <= told["seats"]
    assert told["exit_status"] == 0
    assert told["statuses"]["200"] > 0
