"""Checkpoints of a run: whole or not at all, damage noticed, a full disk survived."""

import builtins
import errno
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from deepseek.checkpoint.checkpoint import open_checkpoint
from deepseek.errors import CheckpointError
from deepseek.models.auto import AutoModel
from deepseek.models.decoder import Model
from deepseek.models.tensor_files import read_tensors
from deepseek.training.checkpoints import HASHES, OPTIMISER, Checkpoints
from model_cases import CASES

TENSORS = {"a": torch.arange(6.0).view(2, 3), "step": torch.tensor(3.0), "half": torch.ones(5, dtype=torch.bfloat16)}


@pytest.fixture(scope="module")
def model() -> Model:
    return AutoModel.from_config(CASES["v3"], seed=0)


def save(folder: Path, model: Model, *steps: int, keep: int = 9, **options: Any) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep=keep)
    for step in steps:
        checkpoints.save(step, model, TENSORS, {"step": step}, **options)
    return checkpoints


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_is_saved_is_read_back(tmp_path: Path, model: Model) -> None:
    saved = save(tmp_path, model, 7).newest()
    assert saved is not None
    assert (saved.step, saved.state) == (7, {"step": 7, "names": []})
    targets = {name: torch.zeros_like(tensor) for name, tensor in TENSORS.items()}
    read_tensors(saved.path / OPTIMISER, targets)
    assert all(torch.equal(targets[name], tensor) for name, tensor in TENSORS.items())
    with open_checkpoint(saved.path) as checkpoint:
        assert checkpoint.config == model.config
    assert set(json.loads((saved.path / HASHES).read_text())) == names(saved.path) - {HASHES}


def test_the_newest_stay_and_the_named_too(tmp_path: Path, model: Model) -> None:
    save(tmp_path, model, 1, 2, keep=2, names=("early",))
    save(tmp_path, model, 3, 40, keep=2)
    assert names(tmp_path) == {"step-00000003", "step-00000040", "early"}
    assert json.loads((tmp_path / "early" / "state.json").read_text())["step"] == 1  # the first of that name


def test_a_save_cut_short_after_it_was_whole_is_finished_later(tmp_path: Path, model: Model) -> None:
    save(tmp_path, model, 1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "_finish", lambda *_: None)
        save(tmp_path, model, 3, keep=2, names=("final",))
    assert names(tmp_path) == {"step-00000001", "step-00000002", "step-00000003"}
    Checkpoints(tmp_path, keep=2).newest()
    assert names(tmp_path) == {"step-00000002", "step-00000003", "final"}


@pytest.mark.parametrize("how", ["flipped", "cut", "missing", "no hashes", "empty hashes"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_used(tmp_path: Path, model: Model, how: str) -> None:
    checkpoints = save(tmp_path, model, 1, 2)
    newest = tmp_path / "step-00000002"
    target = newest / OPTIMISER
    content = target.read_bytes()
    if how == "flipped":
        target.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif how == "cut":
        target.write_bytes(content[:-1])
    elif how == "missing":
        target.unlink()
    elif how == "no hashes":
        (newest / HASHES).unlink()
    else:
        (newest / HASHES).write_text("{}")
    told: list[str] = []
    saved = checkpoints.newest(lambda label, *_: told.append(label))
    assert saved is not None
    assert saved.step == 1
    assert "step-00000002 is damaged" in told[0]
    assert not newest.exists()  # so that nothing else takes it for good
    assert any(name.startswith("damaged-step-00000002") for name in names(tmp_path))
    checkpoints.save(2, model, TENSORS, {"step": 2})
    again = checkpoints.newest()
    assert again is not None
    assert again.step == 2


def test_without_any_whole_one_there_is_none(tmp_path: Path, model: Model) -> None:
    assert Checkpoints(tmp_path, keep=2).newest() is None
    checkpoints = save(tmp_path, model, 1)
    (tmp_path / "step-00000001" / HASHES).write_text("broken")
    assert checkpoints.newest() is None


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path, model: Model) -> None:
    checkpoints = save(tmp_path, model, 1)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".step-00000002.0123abcd.partial")
    saved = checkpoints.newest()
    assert saved is not None
    assert saved.step == 1
    assert names(tmp_path) == {"step-00000001"}


class FullDisk:
    """The disk is full from the n-th write, sync, file or folder on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
        self.left = allowed
        for owner, name in ((os, "fsync"), (os, "mkdir"), (os, "link"), (os, "rename")):
            self._limit(monkeypatch, owner, name)
        opened = io.open

        def limited_open(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if set(mode) & set("wxa+"):
                self.spend()
            return opened(file, mode, *args, **options)

        monkeypatch.setattr(io, "open", limited_open)
        monkeypatch.setattr(builtins, "open", limited_open)

    def _limit(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def limited(*args: Any, **options: Any) -> Any:
            self.spend()
            return real(*args, **options)

        monkeypatch.setattr(owner, name, limited)

    def spend(self) -> None:
        if self.left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.left -= 1


def test_a_full_disk_at_any_moment_leaves_the_last_checkpoint_whole(tmp_path: Path, model: Model) -> None:
    checkpoints = save(tmp_path, model, 1)
    messages: list[str] = []
    for allowed in range(200):
        with pytest.MonkeyPatch.context() as patch:
            FullDisk(patch, allowed)
            try:
                checkpoints.save(2, model, TENSORS, {"step": 2}, names=("kept",))
                break
            except CheckpointError as error:
                messages.append(str(error))
        saved = Checkpoints(tmp_path, keep=9).newest()
        assert saved is not None
        assert saved.step in (1, 2)
        assert not any(name.startswith(".") for name in names(tmp_path)), "nothing half written stays"
        for name in ("step-00000002", "kept"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
    assert len(messages) > 10
    assert all("no space left" in message for message in messages)
    assert names(tmp_path) == {"step-00000001", "step-00000002", "kept"}


def test_tensors_of_another_run_are_refused(tmp_path: Path, model: Model) -> None:
    saved = save(tmp_path, model, 1).newest()
    assert saved is not None
    with pytest.raises(CheckpointError, match="tensor 'other' is not in both"):
        read_tensors(saved.path / OPTIMISER, {**TENSORS, "other": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"tensor 'a' has shape \[2, 3\], this run needs \[3, 2\]"):
        read_tensors(saved.path / OPTIMISER, {**TENSORS, "a": torch.zeros(3, 2)})
