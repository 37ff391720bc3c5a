"""`deepseek bench` and `deepseek perplexity`: what they refuse, what they print."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from deepseek.cli import bench
from deepseek.cli.app import app
from deepseek.profiler.comparison import Row
from deepseek.profiler.measurement import Loading, Measurement
from deepseek.profiler.sizes import FileSize
from deepseek.profiler.work import Timing, Work

TEXT = "It was the best of times, it was the worst of times. " * 40


def measurement() -> Measurement:
    rows = [
        Row(
            work=Work(kind="decode", context=64, count=64),
            settings={"deepseek": {}, "llama.cpp": {"flash": True}},
            timings={
                "deepseek": [Timing(seconds=1.0, tokens=64), Timing(seconds=2.0, tokens=64)],
                "llama.cpp": [Timing(seconds=2.0, tokens=64), Timing(seconds=3.0, tokens=64)],
            },
            limits=[10e9, 8e9],
            neighbours=0.5,
        )
    ]
    return Measurement(
        model="/some/where/model.gguf",
        size=FileSize(weights=1000, weight_bytes=562, bytes_per_token=100_000_000),
        threads=2,
        loading={side: Loading(cold=2.0, warm=1.0, memory=None) for side in ("deepseek", "llama.cpp")},
        rows=rows,
        memory={"deepseek": {"resident": 123_000_000}, "llama.cpp": None},
        facts={"deepseek": {}, "llama.cpp": {}},
        perplexities={"deepseek": 12.5, "llama.cpp": 12.75},
        scored_tokens=511,
    )


def test_the_record_of_a_comparison() -> None:
    record: dict[str, Any] = json.loads(json.dumps(bench.record(measurement())))
    assert record["model"] == "model.gguf"
    assert record["memory_limit_gb_s"] == 10.0
    assert record["bits_per_weight"] == 4.496
    (row,) = record["rows"]
    assert row["deepseek"]["tokens_per_s"] == 48.0
    assert row["deepseek"]["share_of_limit"] == 0.52  # 64 of 100 and 32 of 80 tokens/s
    assert row["ratios"] == [2.0, 1.5]
    assert row["ratio"] == 1.75
    assert record["perplexity"] == {"deepseek": 12.5, "llama.cpp": 12.75}


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("out", "err"):
        monkeypatch.setattr(bench, name, Console(record=True, width=140, force_terminal=False))
    bench._print(measurement())
    text = bench.out.export_text()
    assert "decode, context 64" in text
    for cell in ("48.0", "52%", "1.75", "4.50", "100.0", "12.500 / 12.750"):
        assert cell in text, cell
    assert "deepseek: ready in 2.00 s cold, 1.00 s warm, 123 MB in memory after the work" in text
    assert "measure again on a quiet machine" in bench.err.export_text()


def test_without_llama_cpp_bench_says_how_to_build_it() -> None:
    script = (
        "import sys\nsys.modules['llama_cpp'] = None\nsys.argv = ['deepseek', 'bench', '--against', 'llama.cpp']\n"
        "from deepseek.cli import main\nmain()"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "pip install --no-binary llama-cpp-python" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not result.stdout


class Constant:
    """Stands for the engine: every token has probability one half."""

    def __init__(self, path: Path, **options: Any) -> None:
        pass

    def losses(self, window: list[int]) -> list[float]:
        return [0.6931471805599453] * (len(window) - 1)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("words", [[], ["smollm2"], ["--model", "smollm2"]])
def test_perplexity_counts_every_window(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepseek.profiler.engine_side.EngineSide", Constant)
    (tmp_path / "text.txt").write_text(TEXT)
    options = ["--window", "16", "--windows", "20", "--json"]
    result = CliRunner().invoke(app, ["perplexity", *words, str(tmp_path / "text.txt"), *options])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["perplexity"] == pytest.approx(2.0)
    assert facts["scored_tokens"] == 20 * 15
    assert facts["windows"] == 20


def test_a_short_context_is_one_window(tmp_path: Path) -> None:
    """The model that comes along takes 512 tokens: a window of all of them is scored, since nothing is generated."""
    (tmp_path / "text.txt").write_text("one two three " * 400)
    model = Path(__file__).parent.parent.parent / "checkpoints" / "tiny-moe"
    words = ["perplexity", str(model), str(tmp_path / "text.txt"), "--windows", "1", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["scored_tokens"] == 511


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bench", "--against", "vllm"), "the one that is known is llama.cpp"),
        (("perplexity", "no-such-text"), "no-such-text: cannot be read"),
        (("perplexity", "smollm2", "tests"), "write deepseek perplexity MODEL FILE"),
    ],
)
def test_what_a_user_can_mend(words: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, list(words))
    assert result.exception is not None
    assert message in str(result.exception)
