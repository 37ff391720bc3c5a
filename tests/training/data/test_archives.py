"""Archives of every kind, sound and hostile."""

import io
import shutil
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from deepseek.errors import DataError
from deepseek.training.data.archives import members_of
from deepseek.training.data.local_files import files_below
from deepseek.training.data.members import Wanted

ALL = Wanted(["**"])


def tarball(files: Mapping[str, bytes], links: Mapping[str, str] | None = None, mode: str = "w:xz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return out.getvalue()


def deb(data: bytes, name: str = "data.tar.xz") -> bytes:
    def member(name: str, data: bytes) -> bytes:
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        return header + data + b"\n" * (len(data) % 2)

    return b"!<arch>\n" + member("debian-binary", b"2.0\n") + member("control.tar.xz", b"odd") + member(name, data)


def read(path: Path, wanted: Wanted = ALL) -> dict[str, bytes]:
    return {member.name: member.data for member in members_of(path, wanted)}


def test_wheel(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.writestr("a/b.txt", "hello")
        archive.writestr("a/c.py", "x")
    assert read(tmp_path / "x.whl", Wanted(["**/*.txt"])) == {"a/b.txt": b"hello"}


@pytest.mark.parametrize(("name", "mode"), [("x.tar.gz", "w:gz"), ("x.tgz", "w:gz"), ("x.tar.bz2", "w:bz2")])
def test_tarballs_lose_their_outer_folder(tmp_path: Path, name: str, mode: str) -> None:
    (tmp_path / name).write_bytes(tarball({"package/a/b.txt": b"hello"}, mode=mode))
    assert read(tmp_path / name) == {"a/b.txt": b"hello"}


@pytest.mark.parametrize("mode", ["w:xz", "w:gz", "w"])
def test_debian_package(tmp_path: Path, mode: str) -> None:
    name = {"w:xz": "data.tar.xz", "w:gz": "data.tar.gz", "w": "data.tar"}[mode]
    (tmp_path / "x.deb").write_bytes(deb(tarball({"./usr/a::b.txt": b"hello"}, {"./usr/c": "/etc/passwd"}, mode), name))
    assert read(tmp_path / "x.deb") == {"usr/a::b.txt": b"hello"}


@pytest.mark.skipif(not (shutil.which("zstd") and shutil.which("dpkg-deb")), reason="needs zstd and dpkg-deb")
def test_debian_package_in_zstandard(tmp_path: Path) -> None:
    for part in ("control", "data"):
        (tmp_path / f"{part}.tar").write_bytes(tarball({f"./{part}.txt": b"hello"}, mode="w"))
        subprocess.run(["zstd", "-q", str(tmp_path / f"{part}.tar")], check=True)
    control, data = ((tmp_path / f"{part}.tar.zst").read_bytes() for part in ("control", "data"))
    package = b"!<arch>\n"
    for name, content in {"debian-binary": b"2.0\n", "control.tar.zst": control, "data.tar.zst": data}.items():
        package += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        package += content + b"\n" * (len(content) % 2)
    (tmp_path / "x.deb").write_bytes(package)
    assert read(tmp_path / "x.deb") == {"data.txt": b"hello"}


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\..\\evil"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.deb").write_bytes(deb(tarball({name: b"x"})))
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), "x")
    for archive_name in ("x.deb", "x.whl"):
        with pytest.raises(DataError, match="leaves the folder"):
            read(tmp_path / archive_name)


def test_bombs_stop_at_the_stated_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepseek.training.data.members.MAX_MEMBER_BYTES", 100_000)
    with zipfile.ZipFile(tmp_path / "x.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(200_000))
    (tmp_path / "x.tgz").write_bytes(tarball({"p/a": bytes(200_000)}, mode="w:gz"))
    (tmp_path / "x.deb").write_bytes(deb(tarball({"a": bytes(200_000)})))
    for name in ("x.whl", "x.tgz", "x.deb"):
        with pytest.raises(DataError, match=r"grows past 100\.0 kB: refused"):
            read(tmp_path / name)


def test_all_members_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.tgz").write_bytes(tarball({f"p/{n}": bytes(60) for n in range(4)}, mode="w:gz"))
    monkeypatch.setattr("deepseek.training.data.archives.Budget", _limited(bytes_left=200))
    with pytest.raises(DataError, match="refused"):
        read(tmp_path / "x.tgz")
    monkeypatch.setattr("deepseek.training.data.archives.Budget", _limited(members_left=3))
    with pytest.raises(DataError, match="holds more than"):
        read(tmp_path / "x.tgz")


def _limited(**limits: int):  # type: ignore[no-untyped-def]
    from deepseek.training.data.members import Budget

    return lambda where: Budget(where, **limits)


def test_a_zip_that_lies_about_sizes_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.writestr("a", bytes(5000))
    data = (tmp_path / "x.whl").read_bytes()
    (tmp_path / "x.whl").write_bytes(data.replace(struct.pack("<II", 5000, 5000), struct.pack("<II", 5000, 10)))
    with pytest.raises(DataError, match="damaged"):
        read(tmp_path / "x.whl")


@pytest.mark.parametrize("name", ["x.whl", "x.tgz", "x.deb"])
@pytest.mark.parametrize("cut", [0, 0.1, 0.5, 0.7])
def test_damaged_archives_are_errors_that_name_them(tmp_path: Path, name: str, cut: float) -> None:
    if name == "x.whl":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("a", "hello " * 100)
    else:
        whole = tarball({"p/a": b"hello"}, mode="w:gz") if name == "x.tgz" else deb(tarball({"a": b"hello"}))
        (tmp_path / name).write_bytes(whole)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(DataError, match=name):
        read(tmp_path / name)


def test_folders_are_read_in_order_and_links_lead_anywhere(tmp_path: Path) -> None:
    """As in a hub cache, whose snapshots are links to blobs. Archives from elsewhere are another matter: see above."""
    (tmp_path / "blob").write_text("3")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "d.txt").write_text("4")
    home = tmp_path / "home"
    (home / "b").mkdir(parents=True)
    (home / "b" / "two.txt").write_text("2")
    (home / "a.txt").write_text("1")
    (home / "a.bin").write_text("no")
    (home / "c.txt").symlink_to("../blob")
    (home / "linked").symlink_to("../more")
    (home / "b" / "loop").symlink_to("..")
    members = files_below(home, Wanted(["**/*.txt"]))
    assert [(member.name, member.data) for member in members] == [
        ("a.txt", b"1"),
        ("b/two.txt", b"2"),
        ("c.txt", b"3"),
        ("linked/d.txt", b"4"),
    ]
    with pytest.raises(DataError, match="no such file or folder"):
        list(files_below(tmp_path / "none", ALL))
    (home / "gone.txt").symlink_to("../nowhere")
    with pytest.raises(DataError, match=r'gone\.txt: is a link to \.\./nowhere.*exclude = \["gone\.txt"\]'):
        list(files_below(home, Wanted(["**/*.txt"])))


def test_hidden_files_are_read_only_when_named(tmp_path: Path) -> None:
    for name in (".git/config", ".notes/a.txt", "b/.hidden.txt", "b/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [member.name for member in files_below(tmp_path, ALL)] == ["b/c.txt"]
    assert [member.name for member in files_below(tmp_path, Wanted([".notes/**"]))] == [".notes/a.txt"]


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*.py", "a.py", True),
        ("*.py", "a/b.py", False),
        ("**/*.py", "a.py", True),
        ("**/*.py", "a/b/c.py", True),
        ("a/**", "a/b/c", True),
        ("a/**", "ab/c", False),
        ("ch[0-9]?.html", "ch01.html", True),
        ("[!_]*.py", "_x.py", False),
        ("a+b", "a+b", True),
    ],
)
def test_patterns(pattern: str, name: str, matches: bool) -> None:
    assert (name in Wanted([pattern])) is matches
    assert name not in Wanted(["**"], exclude=[pattern]) or not matches
