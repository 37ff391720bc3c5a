"""Run folders as the trainer writes them, without a trainer."""

import json
from pathlib import Path
from typing import Any

LAYERS, EXPERTS, LOAD_EVERY, STEP_TOKENS = 2, 4, 10, 1024


def record(step: int, *, load_every: int = LOAD_EVERY) -> dict[str, Any]:
    """A line of log.jsonl."""
    loss = 2 + 8 / step
    told: dict[str, Any] = {
        "step": step, "tokens": step * STEP_TOKENS, "loss": loss + 0.3 * (loss + 1), "main_loss": loss,
        "mtp_loss": loss + 1, "balance_loss": 0.0, "learning_rate": 1e-3, "gradient_norm": 1 / step, "seconds": 0.5,
        "tokens_per_second": 2048.0, "peak_share": 0.25, "memory_bytes": 1 << 30,
    }  # fmt: skip
    if step % load_every == 0:
        shares = [0.1, 0.2, 0.3, 0.4]
        told["layers"] = [
            {"layer": layer + 1, "load_e": shares, "max_violation": 0.6, "dropped": layer * 3, "capacity": 1.25}
            for layer in range(LAYERS)
        ]
    return told


def write_lines(path: Path, lines: list[dict[str, Any]], *, more: bool = False) -> None:
    with path.open("a" if more else "w") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def write_run(folder: Path, steps: int = 40, *, planned: int | None = None, **facts: Any) -> Path:
    """A run of so many steps, evaluated at the end, of `planned` steps."""
    folder.mkdir(parents=True)
    told = {
        "recipe": {"name": folder.name, "training": {"load_every": LOAD_EVERY}},
        "config": {"family": "deepseek_v3", "num_hidden_layers": LAYERS},
        "parameters": 1_000_000, "active_parameters": 400_000, "started": "2026-01-02T03:04:05+00:00",
        "steps": planned or steps, "tokens": (planned or steps) * STEP_TOKENS,
        "stages": [{"name": "main", "start": 0, "stop": steps, "sequence_length": 128}],
        "machine": {"processor": "a processor", "cores": 2, "matrix_peak": 1e12, "torch": "2", "deepseek": "0"},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps({**told, **facts}))
    write_lines(folder / "log.jsonl", [record(step) for step in range(1, steps + 1)])
    at = {"step": steps, "tokens": steps * STEP_TOKENS}
    write_lines(folder / "evaluations.jsonl", [{**at, "loss": {"english": 2.5, "code": 1.5}}])
    write_lines(folder / "samples.jsonl", [{**at, "prompt": "Return a", "text": " value of <b>x</b>"}])
    found = {"recall": {"512": 0.75}, "by_depth": {"512": {"0": 0.5, "0.5": 1.0}}}
    write_lines(folder / "needle.jsonl", [{**at, "window": None, **found}])
    return folder
