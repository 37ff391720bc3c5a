"""Compiled code is kept where only we can write, and is never older than its sources."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from numba.core import config

import deepseek
from deepseek.kernels import compile_cache

PACKAGE = Path(deepseek.__file__).parent

PROBE = '''
"""For a test: a + b by an intrinsic of another file."""
from deepseek.kernels.memory import field
from deepseek.kernels.plan import kernel
from deepseek.kernels.vectors import add, load_f32, store_f32


@kernel
def probe(op: int, me: int) -> None:
    if me == 0:
        store_f32(field(op, 4), add(load_f32(field(op, 4)), load_f32(field(op, 4))))
'''

RUN_PROBE = """
import json
from numba.core import event
passes = event.RecordingListener()
event.register("numba:run_pass", passes)
from deepseek.kernels import compile_cache
warm = compile_cache.is_warm()
import numpy as np
from deepseek.kernels.plan import ROW_FIELDS
from deepseek.kernels.probe import probe
from deepseek.kernels.team import Job, Team, aligned
values, table = aligned(16, np.float32), aligned(ROW_FIELDS, np.int64).reshape(1, -1)
values[:] = 3
table[0, :5] = probe.address, 0, 1, aligned(16, np.int64).ctypes.data, values.ctypes.data
team = Team(2)
team.run(Job(table, aligned(8, np.int64)), shared=True)
print(json.dumps({"sum": float(values[0]), "warm": warm, "passes": len(passes.buffer),
                  "folder": str(compile_cache.CACHE)}))
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for this test alone."""
    monkeypatch.setenv("DEEPSEEK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(config, "CACHE_DIR", config.CACHE_DIR)
    return tmp_path / "cache"


def is_ours(folder: Path, cache: Path) -> bool:
    """Whether a folder is the named one; a temporary one is removed."""
    if folder.is_relative_to(cache):
        return True
    assert folder.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(folder)
    return False


def test_the_folder_is_private(cache: Path) -> None:
    before = os.umask(0)
    try:
        folder = compile_cache.use_private_cache()
    finally:
        os.umask(before)
    assert folder == cache / "kernels" / compile_cache.fingerprint()
    assert str(folder) == config.CACHE_DIR
    if sys.platform != "win32":
        assert folder.stat().st_mode & 0o777 == 0o700
    assert compile_cache.use_private_cache() == folder


@pytest.mark.skipif(sys.platform == "win32", reason="owners and modes")
@pytest.mark.parametrize("mode", [0o770, 0o720, 0o707, 0o701])
def test_a_folder_open_to_others_is_not_used(cache: Path, mode: int) -> None:
    compile_cache.use_private_cache().chmod(mode)
    assert not is_ours(compile_cache.use_private_cache(), cache)


@pytest.mark.skipif(sys.platform == "win32", reason="owners and modes")
def test_a_folder_of_another_user_is_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_cache.use_private_cache()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert not is_ours(compile_cache.use_private_cache(), cache)


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_a_link_is_not_used(cache: Path, tmp_path: Path) -> None:
    folder = compile_cache.use_private_cache()
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    assert not is_ours(compile_cache.use_private_cache(), cache)


def test_where_no_folder_can_be_made_a_temporary_one_serves(cache: Path) -> None:
    cache.write_text("a file is in the way")
    assert not is_ours(compile_cache.use_private_cache(), cache)


def test_versions_unused_for_a_month_are_forgotten(cache: Path) -> None:
    current = compile_cache.use_private_cache()
    ages = {"old": 31, "recent": 29}
    for name, days in ages.items():
        folder = cache / "kernels" / name
        folder.mkdir()
        (folder / "code.nbc").write_bytes(b"")
        os.utime(folder, (0, time.time() - days * 86400))
    os.utime(current, (0, 0))
    (cache / "kernels" / "dangling").symlink_to(cache / "nowhere")
    assert compile_cache.use_private_cache() == current
    assert sorted(folder.name for folder in (cache / "kernels").iterdir()) == sorted(
        [current.name, "recent", "dangling"]
    )


@pytest.mark.parametrize(
    "setting", [("CPU_FEATURES", "+sse2"), ("CPU_FEATURES", "+sse2,+avx"), ("CPU_NAME", "nehalem")]
)
def test_the_fingerprint_knows_the_processor(setting: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = compile_cache.fingerprint()
    assert compile_cache.fingerprint() == before
    monkeypatch.setattr(config, *setting)
    assert compile_cache.fingerprint() != before


def test_an_edited_intrinsic_is_seen_and_nothing_is_compiled_twice(cache: Path, tmp_path: Path) -> None:
    """Numba by itself would go on running the old code: its cache looks at the file of the caller alone."""
    tree = tmp_path / "tree"
    shutil.copytree(PACKAGE, tree / "deepseek", ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "deepseek/kernels/probe.py").write_text(PROBE)

    def run() -> dict:
        environment = {**os.environ, "PYTHONPATH": str(tree), "DEEPSEEK_CACHE": str(cache)}
        done = subprocess.run(
            [sys.executable, "-c", RUN_PROBE], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    first, second = run(), run()
    assert (first["sum"], first["warm"]) == (6, False)
    assert first["passes"] > 0
    assert second == {"sum": 6, "warm": True, "passes": 0, "folder": first["folder"]}

    vectors = tree / "deepseek/kernels/vectors.py"
    text = vectors.read_text()
    assert text.count('("fadd", "fsub", "fmul", "fdiv")') == 1
    vectors.write_text(text.replace('("fadd", "fsub", "fmul", "fdiv")', '("fmul", "fsub", "fadd", "fdiv")'))
    edited = run()
    assert (edited["sum"], edited["warm"]) == (9, False)
    assert edited["folder"] != first["folder"]

    vectors.write_text(text)
    assert run() == second
