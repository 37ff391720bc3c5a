"""A whole measurement with sides that only pretend: what is loaded, in which order, and what ends up in the record."""

import json
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest

from deepseek.cli.bench import record
from deepseek.errors import DeepseekError
from deepseek.profiler import measurement, memory_limit
from deepseek.profiler.work import Timing, Work
from synthetic_moe import write_synthetic
from test_synthetic_checkpoint import small

RATES = {"deepseek": 200.0, "llama.cpp": 100.0}


class Pretender:
    """Stands for `RemoteSide`; notes who was loaded."""

    loaded: ClassVar[list[str]] = []
    open_now = 0
    pid = 1

    def __init__(self, name: str, path: Path, *, threads: int, settings: dict[str, Any] | None = None) -> None:
        self.name = name
        self.loaded.append(name)
        self.load_seconds = float(len(self.loaded))
        self.memory = {"resident": 5}
        Pretender.open_now += 1

    def tune(self, work: Work) -> dict[str, Any]:
        return {}

    def run(self, work: Work) -> Timing:
        return Timing(seconds=work.tokens / RATES[self.name], tokens=work.tokens, decode_seconds=1.0)

    def losses(self, window: list[int]) -> list[float]:
        return [1.0] * (len(window) - 1)

    def facts(self) -> dict[str, Any]:
        return {"side": self.name}

    def memory_now(self) -> dict[str, int]:
        return {"resident": 7}

    def close(self) -> None:
        Pretender.open_now -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_synthetic(tmp_path / "small.gguf", small())
    monkeypatch.setattr(measurement, "RemoteSide", Pretender)
    monkeypatch.setattr(measurement, "_QUIET_SECONDS", 0.0)
    monkeypatch.setattr(measurement, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(Pretender, "loaded", [])
    monkeypatch.setattr(memory_limit, "BUFFER_BYTES", 1 << 16)
    monkeypatch.setattr(memory_limit, "SECONDS", 0.0)
    return tmp_path / "small.gguf"


def test_both_sides_in_one_record(path: Path) -> None:
    windows = [[1, 2, 3], [4, 5, 6]]
    result = measurement.measure(path, quick=True, against=True, threads=1, rounds=2, windows=windows)
    # Ours is loaded once more: that makes the store and the compiled kernels.
    assert Pretender.loaded == [*(["deepseek"] * 3), *(["llama.cpp"] * 2), "deepseek", "llama.cpp"]
    assert Pretender.open_now == 0
    facts = json.loads(json.dumps(record(result)))
    assert facts["loading"]["deepseek"] == {"cold_s": 2.0, "warm_s": 3.0, "memory": {"resident": 5}}
    assert [row["ratio"] for row in facts["rows"]] == [2.0] * 3
    assert [row["kind"] for row in facts["rows"]] == ["prompt", "decode", "together"]
    assert facts["scored_tokens"] == 4
    assert facts["perplexity"]["llama.cpp"] == pytest.approx(2.7183, abs=1e-4)


def test_alone(path: Path) -> None:
    result = measurement.measure(path, quick=True, threads=1, rounds=1)
    assert result.sides == ["deepseek"]
    assert "ratio" not in record(result)["rows"][0]


def test_llama_cpp_needs_a_gguf_file(tmp_path: Path) -> None:
    with pytest.raises(DeepseekError, match="convert it first"):
        measurement.measure(tmp_path, against=True, threads=1)
