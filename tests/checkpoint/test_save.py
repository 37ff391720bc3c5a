"""Saving: what Transformers loads, and what interruptions, full disks and wrong input leave behind."""

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

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from deepseek.checkpoint.atomic import atomic_file
from deepseek.checkpoint.checkpoint import open_checkpoint
from deepseek.checkpoint.decode import from_float32
from deepseek.checkpoint.save import save_checkpoint
from deepseek.checkpoint.tensor import RawTensor
from deepseek.config import ModelConfig
from deepseek.errors import CheckpointError
from deepseek.families.weights import weight_shapes
from tiny_checkpoints import LLAMA, V3, V3_FP8, equal, quantize, random_tensors

Tensors = dict[str, RawTensor]
INDEX = "model.safetensors.index.json"


def stored(folder: Path) -> tuple[ModelConfig, Tensors]:
    with open_checkpoint(folder) as checkpoint:
        return checkpoint.config, {name: checkpoint.raw(name) for name in checkpoint.names()}


def same(ours: Tensors, theirs: Tensors) -> bool:
    return ours.keys() == theirs.keys() and all(equal(ours[name], theirs[name]) for name in ours)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def as_torch(tensor: RawTensor) -> torch.Tensor:
    dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[tensor.dtype]
    return torch.from_numpy(tensor.data.copy()).view(dtype).reshape(tensor.shape)


@pytest.mark.parametrize("max_shard_bytes", [10**9, 4000], ids=["single", "sharded"])
@pytest.mark.parametrize("config", [LLAMA, replace(LLAMA, tie_word_embeddings=True), V3], ids=["llama", "tied", "v3"])
def test_transformers_loads_it(config: ModelConfig, max_shard_bytes: int, tmp_path: Path) -> None:
    tensors = random_tensors(config)
    full = random_tensors(config, dtype="F32")
    tensors |= {name: full[name] for name in tensors if name.endswith("correction_bias")}  # as the hub's files
    save_checkpoint(tmp_path, config, tensors.items(), max_shard_bytes=max_shard_bytes)
    assert (tmp_path / INDEX).exists() == (max_shard_bytes < 10**9)
    config_there = transformers.AutoConfig.from_pretrained(tmp_path)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto", output_loading_info=True)
    assert not any(info.values())
    assert config_there.dtype == model.dtype == torch.bfloat16
    model.save_pretrained(tmp_path / "theirs")
    assert same(stored(tmp_path / "theirs")[1], tensors)
    hub_layout = {
        name: tensor
        for file in tmp_path.glob("*.safetensors")
        for name, tensor in safetensors.torch.load_file(file).items()
    }
    assert hub_layout.keys() == tensors.keys()
    assert all(torch.equal(as_torch(tensor), hub_layout[name]) for name, tensor in tensors.items())


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_types_survive(dtype: str, tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA, dtype=dtype)
    tensors["model.norm.weight"] = random_tensors(LLAMA, dtype="F32")["model.norm.weight"]
    save_checkpoint(tmp_path, LLAMA, tensors.items())
    assert same(stored(tmp_path)[1], tensors)
    name = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype]
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == name


@pytest.mark.parametrize("max_shard_bytes", [10**9, 9000])
def test_fp8_keeps_its_scales(max_shard_bytes: int, tmp_path: Path) -> None:
    tensors = quantize(random_tensors(V3_FP8), V3_FP8)
    save_checkpoint(tmp_path, V3_FP8, tensors.items(), max_shard_bytes=max_shard_bytes)
    config, there = stored(tmp_path)
    assert config == V3_FP8
    assert same(there, tensors)
    for file in tmp_path.glob("*.safetensors"):
        safetensors.torch.load_file(file)


def test_tensors_of_odd_size_stay_aligned(tmp_path: Path) -> None:
    config = replace(LLAMA, hidden_size=15, head_dim=2, vocab_size=37)
    tensors = random_tensors(config)
    tensors["model.layers.0.input_layernorm.weight"] = from_float32(np.ones(15, np.float32), "F32")
    save_checkpoint(tmp_path, config, tensors.items())
    config_there, there = stored(tmp_path)
    assert config_there == config
    assert same(there, tensors)
    assert all(tensor.data.base is not None for tensor in there.values()), "a view, not a copy"
    for file in tmp_path.glob("*.safetensors"):
        safetensors.torch.load_file(file)


def test_extra_files_and_what_else_lies_there(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    save_checkpoint(tmp_path, LLAMA, random_tensors(LLAMA).items(), extra_files={"tokenizer.json": b"{}"})
    assert files(tmp_path) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert (tmp_path / "tokenizer.json").read_bytes() == b"{}"
    for name in ("../x", "config.json", "a/b", "model-00001-of-00009.safetensors", ""):
        with pytest.raises(CheckpointError, match="extra file"):
            save_checkpoint(tmp_path, LLAMA, random_tensors(LLAMA).items(), extra_files={name: b""})


def test_fewer_shards_leave_none_of_the_old(tmp_path: Path) -> None:
    for seed, limit in enumerate((3000, 5000, 10**9, 3000)):
        tensors = random_tensors(LLAMA, seed)
        save_checkpoint(tmp_path, LLAMA, tensors.items(), max_shard_bytes=limit)
        assert same(stored(tmp_path)[1], tensors)
        if limit == 10**9:
            assert files(tmp_path) == ["config.json", "model.safetensors"]
        else:
            index = json.loads((tmp_path / INDEX).read_text())
            assert files(tmp_path) == sorted({"config.json", INDEX, *index["weight_map"].values()})
            assert index["metadata"]["total_size"] == sum(tensor.data.nbytes for tensor in tensors.values())


def test_a_folder_may_be_saved_into_itself(tmp_path: Path) -> None:
    tensors = random_tensors(V3)
    save_checkpoint(tmp_path, V3, tensors.items(), max_shard_bytes=5000)
    with open_checkpoint(tmp_path) as checkpoint:
        pairs = ((name, checkpoint.raw(name)) for name in checkpoint.names())
        save_checkpoint(tmp_path, V3, pairs, max_shard_bytes=4000)
    assert same(stored(tmp_path)[1], tensors)


def test_wrong_tensors_are_refused_and_change_nothing(tmp_path: Path) -> None:
    good = random_tensors(LLAMA)
    save_checkpoint(tmp_path, LLAMA, good.items())
    norm, rows = "model.norm.weight", "model.layers.0.self_attn.q_proj.weight"
    scale = from_float32(np.ones((1, 1), np.float32), "F32")
    fp8 = RawTensor("F8_E4M3", (16, 16), np.zeros(256, np.uint8), scale, (128, 128))
    bad: list[tuple[list[tuple[str, RawTensor]], str]] = [
        ([*good.items(), ("model.extra", good[norm])], "'model.extra': the configuration .* has no such weight"),
        ([*good.items(), (norm, good[norm])], f"'{norm}': given twice"),
        ([item for item in good.items() if item[0] != norm], f"1 weights were not given, the first is '{norm}'"),
        ([(norm, replace(good[norm], shape=(4, 4)))], r"shape \[4, 4\], the configuration asks for \[16\]"),
        ([(rows, RawTensor("Q8_0", (16, 16), np.zeros(8, np.uint8)))], "type Q8_0 cannot be kept in safetensors"),
        ([(rows, fp8)], r"FP8 needs scales in blocks of config.fp8_block \(None\)"),
    ]
    before = files(tmp_path)
    for tensors, message in bad:
        with pytest.raises(CheckpointError, match=message):
            save_checkpoint(tmp_path, LLAMA, iter(tensors))
        assert files(tmp_path) == before
    assert same(stored(tmp_path)[1], good)


def test_a_failed_save_leaves_no_new_folder(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, RawTensor]]:
        yield next(iter(random_tensors(LLAMA).items()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "new", LLAMA, broken())
    assert files(tmp_path) == []


def test_a_disk_that_is_too_small_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = random_tensors(LLAMA)
    save_checkpoint(tmp_path, LLAMA, good.items())
    usage = namedtuple("usage", "total used free")(10**12, 0, 10**9)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)

    def never() -> Iterator[tuple[str, RawTensor]]:
        raise AssertionError("asked for a tensor")
        yield

    with pytest.raises(CheckpointError, match=r"needs 3.0 GB and the disk has 1.0 GB left; free some space"):
        save_checkpoint(tmp_path, LLAMA, never(), total_bytes=3 * 10**9)
    assert same(stored(tmp_path)[1], good)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match=r"needs [\d.]+ (kB|MB|bytes) and"):
        save_checkpoint(tmp_path, LLAMA, list(good.items()))


@pytest.mark.parametrize("limit", [10**9, 3000])
def test_a_full_disk_at_any_point(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may report it at a write or only when it is forced to the disk."""
    old, new = random_tensors(LLAMA, 0), random_tensors(LLAMA, 1)
    save_checkpoint(tmp_path, LLAMA, old.items(), max_shard_bytes=limit)
    before = files(tmp_path)
    real, calls = os.fsync, 0
    for at in range(1, 40):
        calls = 0

        def full(descriptor: int, at: int = at) -> None:
            nonlocal calls
            calls += 1
            if calls == at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        message = ""
        try:
            save_checkpoint(tmp_path, LLAMA, new.items(), max_shard_bytes=limit)
        except CheckpointError as error:
            message = str(error)
        monkeypatch.undo()
        if message:
            assert "no space left while writing" in message
            there = stored(tmp_path)[1]
            assert same(there, old) or same(there, new)
            if same(there, old):
                assert files(tmp_path) == before
            save_checkpoint(tmp_path, LLAMA, old.items(), max_shard_bytes=limit)
        else:
            break
    assert at > 4
    assert same(stored(tmp_path)[1], new)


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of a process")
def test_a_write_that_the_system_cuts_off(tmp_path: Path) -> None:
    old = random_tensors(LLAMA, 0)
    save_checkpoint(tmp_path, LLAMA, old.items())
    script = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from tiny_checkpoints import LLAMA, random_tensors
from deepseek.checkpoint.save import save_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
try:
    save_checkpoint(__import__("pathlib").Path(sys.argv[1]), LLAMA, random_tensors(LLAMA, 1).items())
except Exception as error:
    print(type(error).__name__, error)
"""
    run = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("CheckpointError no space left while writing"), run
    assert files(tmp_path) == ["config.json", "model.safetensors"]
    assert same(stored(tmp_path)[1], old)


# Kills itself before the n-th change of a folder: the system tells of each before it is made.
KILLED_SAVE = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from dataclasses import replace
from pathlib import Path
from tiny_checkpoints import LLAMA, random_tensors
from deepseek.checkpoint.save import save_checkpoint
folder, left, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
def count(event, arguments):
    global left
    if event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir") or event == "open" and "w" in str(arguments[1]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
config = replace(LLAMA, rms_norm_eps=3e-5)
tensors = random_tensors(config, 1)
sys.addaudithook(count)
save_checkpoint(folder, config, tensors.items(), max_shard_bytes=limit, extra_files={{"tokenizer.json": b"new"}})
"""


def seen_by_others(folder: Path) -> list[Path]:
    """The weight files that another program would load."""
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    if not (folder / INDEX).exists():
        return []
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    return [folder / name for name in sorted(set(weight_map.values()))]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(("before", "after"), [(10**9, 10**9), (5000, 7000), (5000, 10**9), (10**9, 5000)])
def test_killed_at_any_point(before: int, after: int, tmp_path: Path) -> None:
    config = replace(LLAMA, rms_norm_eps=3e-5)
    old, new = random_tensors(LLAMA, 0), random_tensors(config, 1)
    outcomes = set()
    for point in range(1, 100):
        folder = tmp_path / str(point)
        save_checkpoint(folder, LLAMA, old.items(), max_shard_bytes=before, extra_files={"tokenizer.json": b"old"})
        run = subprocess.run([sys.executable, "-c", KILLED_SAVE, folder, str(point), str(after)], check=False)
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGKILL
        others = {name: t for file in seen_by_others(folder) for name, t in safetensors.torch.load_file(file).items()}
        if others:
            whole = old if torch.equal(others["model.norm.weight"], as_torch(old["model.norm.weight"])) else new
            assert all(torch.equal(others[name], as_torch(tensor)) for name, tensor in whole.items())
            eps = json.loads((folder / "config.json").read_text())["rms_norm_eps"]
            assert eps == (1e-5 if whole is old else 3e-5)
        unseen = Path(shutil.copytree(folder, tmp_path / f"{point}-unseen"))
        save_checkpoint(unseen, LLAMA, old.items(), max_shard_bytes=before)
        assert same(stored(unseen)[1], old), "an interrupted save came back over a later one"
        found, there = stored(folder)
        is_new = same(there, new)
        assert is_new or same(there, old)
        assert found == (config if is_new else LLAMA)
        assert (folder / "tokenizer.json").read_bytes() == (b"new" if is_new else b"old")
        outcomes.add((is_new, bool(others)))
        save_checkpoint(folder, LLAMA, old.items(), max_shard_bytes=before)
        assert same(stored(folder)[1], old)
        assert not [name for name in files(folder) if name.startswith(".")]
    assert point > 5
    assert {is_new for is_new, _ in outcomes} == {False, True}


def test_two_that_finish_the_same_save(tmp_path: Path) -> None:
    """A program that opens the folder while another moves the files up waits for it."""
    save_checkpoint(tmp_path, LLAMA, random_tensors(LLAMA, 0).items())
    script = f"""
import sys, time, pathlib
sys.path.insert(0, {str(Path(__file__).parent)!r})
from tiny_checkpoints import LLAMA, random_tensors
from deepseek.checkpoint.save import save_checkpoint
sys.addaudithook(lambda event, arguments: time.sleep(0.2) if event in ("os.rename", "os.remove") else None)
save_checkpoint(pathlib.Path(sys.argv[1]), LLAMA, random_tensors(LLAMA, 1).items(), max_shard_bytes=3000)
"""
    with subprocess.Popen([sys.executable, "-c", script, tmp_path]) as saver:
        while saver.poll() is None and not list(tmp_path.glob(".deepseek-saved-*")):
            pass
        there = stored(tmp_path)[1]
    assert saver.returncode == 0
    assert same(there, random_tensors(LLAMA, 1))
    assert same(stored(tmp_path)[1], random_tensors(LLAMA, 1))


def test_one_tensor_in_memory_at_a_time(tmp_path: Path) -> None:
    config = replace(LLAMA, vocab_size=1 << 18, num_hidden_layers=6, intermediate_size=1 << 18)
    shapes = weight_shapes(config)
    largest = max(np.prod(shape) * 2 for shape in shapes.values())
    total = sum(int(np.prod(shape)) * 2 for shape in shapes.values())
    pairs = (
        (name, RawTensor("BF16", shape, np.zeros(int(np.prod(shape)) * 2, np.uint8))) for name, shape in shapes.items()
    )
    tracemalloc.start()
    seen: list[int] = []
    save_checkpoint(
        tmp_path, config, pairs, total_bytes=total, report=lambda label, done, total, unit="bytes": seen.append(done)
    )
    assert tracemalloc.get_traced_memory()[1] < 2.5 * largest < total / 8
    tracemalloc.stop()
    assert seen[-1] == total
    assert seen == sorted(seen)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as file:
        file.write(b"half" * (1 // 0))
    assert path.read_bytes() == b"old"
    with atomic_file(path) as file:
        file.write(b"xxxx")
        file.seek(0)
        file.write(b"new ")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new "
    assert files(tmp_path) == ["model.gguf"]
    with pytest.raises(CheckpointError, match="no space left while writing"), atomic_file(path) as file:
        raise OSError(errno.ENOSPC, "full")
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "none" / "a"):
        pass
