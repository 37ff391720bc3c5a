"""Stores in the cache: found again, made anew when the source changes, whole whatever happens to the process."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deepseek.checkpoint.checkpoint import open_checkpoint
from deepseek.checkpoint.packed import (
    PackedStore,
    cache,
    ensure_packed,
    open_store,
    stores_of,
    verify_store,
    write_store,
)
from deepseek.checkpoint.packed import writer as packed_writer
from deepseek.errors import CheckpointError, ConfigError, DeepseekError
from gguf_models import CONFIGS, random_weights
from packed_values import RAGGED, write_checkpoint
from tiny_checkpoints import LLAMA, random_tensors, write_shards

CONFIG = RAGGED["v3"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stores of this test go."""
    monkeypatch.setenv("DEEPSEEK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packed"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model", CONFIG, random_tensors(CONFIG))


@pytest.fixture
def packings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every store that is written."""
    written: list[Path] = []

    def counted(path: Path, *arguments: object, **options: object) -> None:
        written.append(path)
        write_store(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "write_store", counted)
    return written


def stores(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_packed_once(model: Path, folder: Path, packings: list[Path]) -> None:
    first, again = ensure_packed(model), ensure_packed(str(model))
    with open_checkpoint(model) as checkpoint:
        third = ensure_packed(checkpoint)
    assert first.path == again.path == third.path
    assert packings == [first.path]
    assert stores(folder) == [first.path.name]
    assert ensure_packed(first.path).path == first.path
    verify_store(third)


def test_each_choice_has_its_store(model: Path, folder: Path) -> None:
    made = {ensure_packed(model, quantize=choice).path for choice in ("auto", "int4", "int8")}
    assert {path.name for path in made} == set(stores(folder))
    assert len(made) == 3


@pytest.mark.parametrize("change", ["weights", "size", "config", "time", "inode"])
def test_a_changed_source_is_packed_anew(change: str, model: Path, folder: Path, packings: list[Path]) -> None:
    before = ensure_packed(model)
    weights = model / "model.safetensors"
    if change == "weights":
        write_checkpoint(model, CONFIG, random_tensors(CONFIG, seed=1))
    elif change == "size":
        write_checkpoint(model, CONFIG, random_tensors(CONFIG, dtype="F32"))
    elif change == "config":
        text = (model / "config.json").read_text()
        (model / "config.json").write_text(text.replace('"rope_theta": 10000.0', '"rope_theta": 20000.0'))
    elif change == "time":
        os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 1))
    else:
        stamp = weights.stat().st_mtime_ns
        shutil.copy(weights, model / "copy")
        os.utime(model / "copy", ns=(stamp, stamp))
        os.replace(model / "copy", weights)
    after = ensure_packed(model)
    assert after.path != before.path
    assert len(packings) == 2
    assert stores(folder) == [after.path.name], "the old store is gone"
    verify_store(before)  # and yet whoever has it open can go on


def test_another_source_is_left_alone(model: Path, tmp_path: Path, folder: Path) -> None:
    other = shutil.copytree(model, tmp_path / "elsewhere" / "model")
    kept = ensure_packed(other).path
    ensure_packed(model)
    os.utime(model / "model.safetensors", ns=(1, 1))
    made = ensure_packed(model).path
    assert stores(folder) == sorted([kept.name, made.name])


def test_shards_have_one_store(tmp_path: Path, packings: list[Path]) -> None:
    tensors = random_tensors(LLAMA)
    names = list(tensors)
    parts = [{name: tensors[name] for name in names[:9]}, {name: tensors[name] for name in names[9:]}]
    whole = write_shards(tmp_path / "sharded", LLAMA, parts)
    first = ensure_packed(whole)
    assert ensure_packed(whole / "model-00002-of-00002.safetensors").path == first.path
    os.utime(whole / "model-00002-of-00002.safetensors", ns=(1, 1))
    assert ensure_packed(whole).path != first.path
    assert len(packings) == 2


def test_a_tokenizer_is_not_part_of_a_store(model: Path, packings: list[Path]) -> None:
    ensure_packed(model)
    (model / "tokenizer.json").write_text("{}")
    ensure_packed(model)
    assert len(packings) == 1


@pytest.mark.parametrize("damage", ["cut", "emptied", "header", "deleted"])
def test_a_damaged_or_deleted_store_is_made_again(damage: str, model: Path) -> None:
    path = ensure_packed(model).path
    whole = path.read_bytes()
    if damage == "deleted":
        shutil.rmtree(path.parent.parent)
    else:
        path.write_bytes({"cut": whole[:-1], "emptied": b"", "header": whole[:99] + b"?" + whole[100:]}[damage])
    assert ensure_packed(model).path.read_bytes() == whole


def test_the_verdict_does_not_hang_on_what_was_run_before(model: Path, folder: Path, packings: list[Path]) -> None:
    """A store that only allow_unknown made possible is one of its own."""
    config = model / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "is_causal": False}))
    for _ in range(2):
        with pytest.raises(ConfigError, match="is_causal is False"):
            ensure_packed(model)
        first = ensure_packed(model, allow_unknown=True)
        assert len(packings) == 1
    assert stores_of(model) == [first.path]
    config.write_text(json.dumps({**json.loads(config.read_text()), "is_causal": True}))
    assert ensure_packed(model).path != first.path
    assert ensure_packed(model, allow_unknown=True).path == ensure_packed(model).path
    assert len(stores(folder)) == 1  # the other one was of a file that is no more


def test_no_source(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        ensure_packed(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(CheckpointError, match="no model in this folder; expected"):
        ensure_packed(tmp_path)


def test_progress_reaches_its_end(model: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    ensure_packed(model, report=lambda label, done, total, unit="bytes": seen.append((label, done, total)))
    assert {label for label, _, _ in seen} == {"packing weights"}
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert sum(done == total for _, done, total in seen) == 1, "the label ends once"


def test_a_disk_that_is_too_small_is_refused_before(model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(packed_writer.shutil, "disk_usage", lambda path: usage(1, 1, 17 << 20))
    ensure_packed(model)
    monkeypatch.setattr(packed_writer.shutil, "disk_usage", lambda path: usage(1, 1, 16 << 20))
    with pytest.raises(CheckpointError, match=r"needs 0\.00 GB and the disk has 0\.02 GB left.*DEEPSEEK_CACHE"):
        ensure_packed(model, quantize="int8")
    assert len(stores(folder)) == 1


def test_a_disk_that_fills_up_leaves_the_old_store(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept.packed"
    with open_checkpoint(model) as checkpoint:
        write_store(path, checkpoint, quantize="int8")
        whole = path.read_bytes()

        def full(*arguments: object) -> Iterator[object]:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(packed_writer, "matrix_pieces", full)
        with pytest.raises(CheckpointError, match=r"no space left while writing .*kept\.packed"):
            write_store(path, checkpoint, quantize="int4")
    assert path.read_bytes() == whole
    assert [file.name for file in tmp_path.glob("*kept*")] == ["kept.packed"]


def test_a_cache_that_cannot_be_written(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DEEPSEEK_CACHE", str(tmp_path / "file"))
    with pytest.raises(DeepseekError, match="cannot write to the cache folder"):
        ensure_packed(model)


KILLED = """
import os, signal, sys
from deepseek.checkpoint.packed import writer, ensure_packed
original, calls = writer.matrix_pieces, []
def killed(*arguments):
    calls.append(1)
    if len(calls) == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    yield from original(*arguments)
writer.matrix_pieces = killed
ensure_packed(sys.argv[1])
"""

PACKS = """
import sys
from deepseek.checkpoint.packed import cache
original = cache.write_store
def slow(*arguments, **options):
    print("packing", flush=True)
    sys.stdin.readline()
    original(*arguments, **options)
cache.write_store = slow
def report(label, done, total, unit="bytes"):
    if label.startswith("waiting") and not done:
        print(label, flush=True)
print(cache.ensure_packed(sys.argv[1], report=report).path)
"""


def test_killed_in_the_middle(model: Path, folder: Path) -> None:
    """What the dead process left is swept away; a store of before the kill stays as it is."""
    other = ensure_packed(model, quantize="int4")
    died = subprocess.run([sys.executable, "-c", KILLED, str(model)])
    assert died.returncode == -signal.SIGKILL
    assert len(stores(folder)) == 2
    assert any(name.endswith(".partial") for name in stores(folder))
    verify_store(open_store(other.path))
    made = ensure_packed(model)
    verify_store(made)
    assert stores(folder) == sorted([other.path.name, made.path.name])


def test_two_processes_pack_once(model: Path) -> None:
    """The second waits, says so, and takes what the first has made."""
    first, second = (
        subprocess.Popen([sys.executable, "-c", PACKS, str(model)], stdin=-1, stdout=-1, text=True) for _ in range(2)
    )
    with first, second:
        assert first.stdout is not None
        assert second.stdout is not None
        lines = [first.stdout.readline().strip(), second.stdout.readline().strip()]
        assert sorted(lines) == ["packing", "waiting for another process that packs this model"]
        packs, waits = (first, second) if lines[0] == "packing" else (second, first)
        made = packs.communicate("go on\n", timeout=60)[0]
        assert waits.communicate(timeout=60)[0] == made
    verify_store(open_store(made.strip()))


def test_memory_stays_under_two_layers(tmp_path: Path) -> None:
    config = replace(
        CONFIGS["llama"], hidden_size=512, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=8, head_dim=64, vocab_size=2000,
    )  # fmt: skip
    folder = write_checkpoint(tmp_path / "hf", config, random_weights(config))
    layer = 4 * (4 * 512 * 512 + 3 * 512 * 2048)
    with open_checkpoint(folder) as checkpoint:
        write_store(tmp_path / "warm.packed", checkpoint, quantize="int4")
        tracemalloc.start()
        try:
            write_store(tmp_path / "m.packed", checkpoint, quantize="int4")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 2 * layer, f"{peak / layer:.2f} layers"


PACKS_LARGE = """
import re
from pathlib import Path
from deepseek.checkpoint.checkpoint import open_checkpoint
from deepseek.checkpoint.packed import open_store, verify_store, write_store
write_store(Path("%(small)s.packed"), open_checkpoint("%(small)s"), quantize="bf16")
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
write_store(Path("%(large)s.packed"), open_checkpoint("%(large)s"), quantize="bf16")
verify_store(open_store("%(large)s.packed"))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_neither_source_nor_store_stays_resident(tmp_path: Path) -> None:
    """Both are mapped; without letting go of pages, all of a file that was read counts as this process's memory."""
    large = replace(LLAMA, hidden_size=512, intermediate_size=4096, num_hidden_layers=8, vocab_size=512)
    write_checkpoint(tmp_path / "small", LLAMA, random_tensors(LLAMA))
    size = sum(part.data.nbytes for part in random_tensors(large).values())
    write_checkpoint(tmp_path / "large", large, random_tensors(large))
    script = PACKS_LARGE % {"small": tmp_path / "small", "large": tmp_path / "large"}
    done = subprocess.run([sys.executable, "-c", script], stdout=-1, text=True, check=True)
    assert int(done.stdout) * 1024 < size / 2, f"{int(done.stdout) / 1024:.0f} of {size >> 20} MB"


def test_stores_are_equal_whenever_they_are_made(model: Path, tmp_path: Path) -> None:
    made: list[PackedStore] = []
    for name in ("one", "two"):
        with open_checkpoint(model) as checkpoint:
            write_store(tmp_path / name, checkpoint)
        made.append(open_store(tmp_path / name))
    assert made[0].path.read_bytes() == made[1].path.read_bytes()
