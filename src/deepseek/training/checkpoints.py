"""Checkpoints of a run: whole or not at all, hashed, and loadable by every other program.

    checkpoints/step-00000100/   config.json, model.safetensors, the tokenizer: the Hugging Face layout
                                 optimiser.safetensors, state.json: what a run needs besides to go on
                                 hashes.json: sha256 of every file above
    checkpoints/NAME             the same, kept for good
Each is written as `.step-00000100.XXXXXXXX.partial`, forced to disk and renamed. A damaged one is moved aside.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from deepseek.checkpoint.atomic import clear_disk_errors, sync_folder
from deepseek.models.decoder import Model
from deepseek.models.tensor_files import write_tensors
from deepseek.progress import Report, silent
from deepseek.tokenizer.tokenizer import Tokenizer

OPTIMISER, STATE, HASHES = "optimiser.safetensors", "state.json", "hashes.json"
_STEP = re.compile(r"step-(\d{8})")
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.partial")


@dataclass(frozen=True, slots=True)
class Saved:
    """A whole checkpoint. state: what state.json holds."""

    path: Path
    step: int
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. keep: the newest so many stay; named ones always do."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder = folder
        self._keep = keep

    def save(
        self,
        step: int,
        model: Model,
        tensors: Mapping[str, Tensor],
        state: Mapping[str, Any],
        *,
        tokenizer: Tokenizer | None = None,
        names: Sequence[str] = (),
        report: Report = silent,
    ) -> Path:
        """names: it also stays under these, unless there is something already.

        Raises CheckpointError when the disk is full; then all earlier checkpoints are as they were.
        """
        path = self.folder / f"step-{step:08}"
        with clear_disk_errors(path), self._partial(path.name) as partial:
            model.save_pretrained(partial, tokenizer, report=report)
            with (partial / OPTIMISER).open("xb") as file:
                write_tensors(file, tensors)
                _sync(file)
            _write_json(partial / STATE, {**state, "names": list(names)})
            _write_json(partial / HASHES, {file.name: sha256(file) for file in sorted(partial.iterdir())})
            sync_folder(partial)
            if path.exists():
                shutil.rmtree(path)
            partial.rename(path)
            sync_folder(self.folder)
        self._finish(path, names)
        return path

    def _finish(self, path: Path, names: Sequence[str]) -> None:
        """What follows once a checkpoint is whole. Cut short, it is done when the run resumes."""
        for name in names:
            if not (self.folder / name).exists():
                self._keep_as(path, name)
        for _, old in self._steps()[: -self._keep]:
            shutil.rmtree(old)

    def newest(self, report: Report = silent) -> Saved | None:
        """The newest whole checkpoint, every byte of it checked; damaged ones are moved aside on the way."""
        self._remove_abandoned()
        for step, path in reversed(self._steps()):
            if fault := _fault(path):
                aside = path.with_name(f"damaged-{path.name}-{secrets.token_hex(2)}")
                path.rename(aside)
                report(f"{path.name} is damaged ({fault}); set aside as {aside.name}", 1, 1, "checkpoints")
                continue
            state = json.loads((path / STATE).read_bytes())
            self._finish(path, state["names"])
            return Saved(path=path, step=step, state=state)
        return None

    def _steps(self) -> list[tuple[int, Path]]:
        """Oldest first."""
        found = ((_STEP.fullmatch(path.name), path) for path in self.folder.iterdir() if path.is_dir())
        return sorted((int(match[1]), path) for match, path in found if match)

    @contextlib.contextmanager
    def _partial(self, name: str) -> Iterator[Path]:
        self._remove_abandoned()
        partial = self.folder / f".{name}.{secrets.token_hex(4)}.partial"
        partial.mkdir(parents=True)
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _remove_abandoned(self) -> None:
        """What a killed process left half written. One process at a time trains in a run folder: see `trainer`."""
        for path in self.folder.iterdir():
            if _PARTIAL.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)

    def _keep_as(self, path: Path, name: str) -> None:
        """The same files under a name, without copying where the file system has hard links."""
        with clear_disk_errors(path), self._partial(name) as partial:
            for file in path.iterdir():
                try:
                    os.link(file, partial / file.name)
                except OSError:
                    shutil.copyfile(file, partial / file.name)
            sync_folder(partial)
            shutil.rmtree(self.folder / name, ignore_errors=True)
            partial.rename(self.folder / name)
            sync_folder(self.folder)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    with path.open("xb") as file:
        file.write((json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())
        _sync(file)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fault(path: Path) -> str | None:
    """What is wrong with a checkpoint; None: every file is there and as it was written."""
    try:
        hashes = json.loads((path / HASHES).read_bytes())
        for name, expected in hashes.items():
            if not (path / name).is_file():
                return f"{name} is missing"
            if sha256(path / name) != expected:
                return f"{name} is not as it was written"
    except (OSError, ValueError, AttributeError):
        return f"{HASHES} is missing or unreadable"
    return None if STATE in hashes and OPTIMISER in hashes else f"{HASHES} lists too little"


def random_state() -> str:
    return torch.get_rng_state().numpy().tobytes().hex()


def restore_random_state(text: str) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8))
