"""The run folder: what it holds and how its files are written, so that nothing in it is ever lost or half there.

run.json, log.jsonl (a step a line), evaluations.jsonl, samples.jsonl, needle.jsonl, left_out.json,
checkpoints/, tensorboard/.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepseek.checkpoint.atomic import atomic_file, clear_disk_errors
from deepseek.errors import CheckpointError, ConfigError

_LOGS = ("log.jsonl", "evaluations.jsonl", "samples.jsonl", "needle.jsonl")


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def exists(self) -> bool:
        return (self.path / "run.json").exists()

    def check_new(self) -> None:
        """Raises ConfigError when there is a run already."""
        if self.exists:
            raise ConfigError(f"{self.path} already holds a run: continue it with --resume, or choose another --out")

    def newest_model(self) -> Path:
        """The finished model, else the newest checkpoint. Raises CheckpointError when there is none."""
        names = sorted(path.name for path in self.checkpoints.glob("step-*") if path.is_dir())
        final = self.checkpoints / "final"
        if not final.is_dir() and not names:
            raise CheckpointError(f"{self.path}: the run has saved no checkpoint yet")
        return final if final.is_dir() else self.checkpoints / names[-1]

    def create(self) -> None:
        with clear_disk_errors(self.path):
            self.checkpoints.mkdir(parents=True, exist_ok=True)

    def write_run(self, values: Mapping[str, Any]) -> None:
        self._write_json("run.json", values)

    def read_run(self) -> dict[str, Any]:
        return self._read_json("run.json", {})

    def left_out(self) -> list[dict[str, Any]]:
        """Batches passed over because a loss or gradient was not finite: stage, batch, step and explanation."""
        found: list[dict[str, Any]] = self._read_json("left_out.json", {"batches": []})["batches"]
        return found

    def write_left_out(self, batches: list[dict[str, Any]]) -> None:
        self._write_json("left_out.json", {"batches": batches})

    def append(self, log: str, values: Mapping[str, Any]) -> None:
        """A line more. It survives a kill from now on, and a power cut once `sync` has run."""
        assert log in _LOGS
        line = json.dumps(values, ensure_ascii=False) + "\n"
        path = self.path / log
        with clear_disk_errors(path), path.open("ab", buffering=0) as file:
            file.write(line.encode())

    def sync(self) -> None:
        """Force the logs to disk: done before a checkpoint is, so that no checkpoint is ahead of its log."""
        for log in _LOGS:
            path = self.path / log
            if path.exists():
                with clear_disk_errors(path), path.open("rb+") as file:
                    os.fsync(file.fileno())

    def cut_logs(self, step: int) -> None:
        """Drop what was logged after `step` steps: the run goes on from there and writes it again. -1: everything."""
        for log in _LOGS:
            path = self.path / log
            if not path.exists():
                continue
            lines = path.read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step]
            if len(kept) < len(lines):
                with atomic_file(path) as file:
                    file.writelines(kept)

    def _write_json(self, name: str, values: Mapping[str, Any]) -> None:
        with atomic_file(self.path / name) as file:
            file.write((json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())

    def _read_json(self, name: str, default: dict[str, Any]) -> dict[str, Any]:
        path = self.path / name
        if not path.exists():
            return default
        try:
            values: dict[str, Any] = json.loads(path.read_bytes())
        except ValueError:
            raise CheckpointError(f"{path}: is not valid JSON; restore it, or start a new run elsewhere") from None
        return values


def run_of(path: Path) -> RunFolder | None:
    """The run that a folder is, or that a checkpoint in it belongs to (RUN/checkpoints/NAME)."""
    absolute = path.absolute()
    for folder in (absolute, absolute.parent.parent):
        if RunFolder(folder).exists:
            return RunFolder(folder)
    return None
