"""Tests of measuring, and of the benchmark scripts' parts that can be wrong without anybody noticing."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent.parent / "benchmarks"))
