"""The table of faults names tests that exist."""

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_every_named_test_is_there() -> None:
    source = "".join(path.read_text() for path in HERE.parent.rglob("test_*.py"))
    table = (HERE / "README.md").read_text()
    for name in re.findall(r"`(test_\w+)(\*?)`", table):
        assert f"def {name[0]}" in source, name
    for path in re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)", table):
        assert (HERE.parents[1] / path).is_file(), path
    for path in re.findall(r"`(test_\w+\.py)`", table):
        assert (HERE / path).is_file(), path
