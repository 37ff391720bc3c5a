"""Commands as a user runs them: what they print where, what they exit with, and how progress shows."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deepseek.cli import console

CONFIGS = Path(__file__).parent.parent / "families" / "configs"
SMOKE = Path(__file__).parent.parent.parent / "recipes" / "data" / "smoke.toml"


def deepseek(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    script = str(Path(sys.executable).parent / "deepseek")
    return subprocess.run([script, *words], input=text, capture_output=True, text=True, timeout=300)


def test_info_as_json() -> None:
    facts: dict[str, Any] = json.loads(deepseek("info", str(CONFIGS / "deepseek-v3.json"), "--json").stdout)
    assert facts["parameters"] == 671_026_419_200
    assert facts["active_parameters"] == 36_625_618_432
    assert facts["kv_bytes_per_token"]["bf16"] == 61 * 576 * 2
    assert len(facts["layers"]) == 61 + 3
    assert facts["config"]["moe"]["n_routed_experts"] == 256


def test_info_has_a_row_for_each_layer_or_kind() -> None:
    path = str(CONFIGS / "deepseek-v2-lite.json")
    assert "layer 1-26, each" in deepseek("info", path).stdout
    assert "layer 26 " in deepseek("info", path, "--layers").stdout


def test_generate_as_json_continues_standard_input() -> None:
    words = ("--json", "--max-tokens", "8", "--stop", "\n")
    facts = json.loads(deepseek("generate", *words, text="The capital of France is").stdout)
    assert facts["text"].startswith(" Paris")
    assert facts["finish_reason"] == "stop"
    assert facts["prompt_tokens"] == 5


@pytest.mark.parametrize("words", [("train", "recipes/smoke.toml"), ("carve", "smollm2", "--out", "x")])
def test_without_pytorch_verbs_say_what_to_install(words: tuple[str, ...]) -> None:
    script = f"import sys\nsys.modules['torch'] = None\nsys.argv[1:] = {words!r}\nfrom deepseek.cli import main\nmain()"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 1
    assert "error: this needs PyTorch: pip install 'deepseek-framework[train]'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_how_threads_wait_is_said_before_pytorch_reads_it(given: dict[str, str]) -> None:
    script = "import os, sys\nfrom deepseek.cli import main, session, train\nassert 'torch' not in sys.modules\n"
    script += "session.require_torch()\nprint(os.environ['OMP_WAIT_POLICY'], os.environ.get('GOMP_SPINCOUNT'))"
    unset = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    result = subprocess.run([sys.executable, "-c", script], env=unset | given, capture_output=True, text=True)
    assert result.stdout.split() == (["ACTIVE", "None"] if given else ["PASSIVE", "1000"]), result.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("chat", "no-such-model", "-p", "hi"), 1, "neither a file nor a known model"),
        (("generate", "-p", "  "), 1, "the prompt is empty"),
        (("generate", "-p", "hi", "--top-p", "0"), 1, "top_p must be above 0"),
        (("generate", "-p", "hi", "--backend", "torch", "--dtype", "int3"), 1, "dtype must be"),
        (("generate", "-p", "hi", "--dtype", "float32"), 1, "--dtype has no effect with --backend engine"),
        (
            ("chat", "-p", "hi", "--backend", "torch", "--threads", "2"),
            1,
            "--threads has no effect with",
        ),
        (("info", str(CONFIGS)), 1, "no checkpoint here"),
        (("data", str(SMOKE), "--out", f"{SMOKE}/x"), 1, f"{SMOKE}/x: Not a directory"),
        (("nonsense",), 2, "No such command"),
    ],
)
def test_what_a_user_can_mend_is_one_message(words: tuple[str, ...], code: int, message: str) -> None:
    result = deepseek(*words)
    assert result.returncode == code
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr
    assert not result.stdout


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(console, "time", made)
    return made


def test_progress_in_a_log_is_a_line_now_and_then(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "err", Console(record=True, force_terminal=False, width=200))
    with console.progress_bars() as report:
        for second in range(41):
            clock.now = 100.0 + second
            report("fetching weights", second * 1_000_000, 40_000_000)
    lines = console.err.export_text().splitlines()
    assert lines == [
        "fetching weights: 1.0/40.0 MB",
        "fetching weights: 16.0/40.0 MB",
        "fetching weights: 31.0/40.0 MB",
    ]


def test_progress_in_a_terminal_waits_a_second(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "err", Console(record=True, force_terminal=True, width=100))
    with console.progress_bars() as report:
        report("short", 0, 10, "layers")
        report("short", 10, 10, "layers")
        report("long", 0, 10, "layers")
        clock.now += 2
        report("long", 5, 10, "layers")
    shown = console.err.export_text()
    assert "long" in shown
    assert "5/10 layers" in shown
    assert "short" not in shown
