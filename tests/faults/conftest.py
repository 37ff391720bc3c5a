import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "server"))  # its live server is used here too

from live_server import Live, live, tiny_engine, write_tiny_moe


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_moe(tmp_path_factory.mktemp("tiny-moe"))


@pytest.fixture(scope="session")
def target(tiny_folder: Path) -> Iterator[Live]:
    """A tiny model behind a server that takes bodies of a megabyte."""
    with live(tiny_engine(tiny_folder), max_body_bytes=1 << 20, body_seconds=0.3) as server:
        yield server
