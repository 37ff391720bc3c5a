"""Packages: fetched once, recorded, held to their hash. The registries are stand-ins on this machine."""

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deepseek.errors import DataError, HubError
from deepseek.training.data.fetch import open_source
from deepseek.training.data.fetch.packages import fetch_package
from deepseek.training.data.recipe import SourceConfig


def source(kind: str, package: str = "tiny-text", **more: Any) -> SourceConfig:
    more = {"format": "text", "members": ("**/*.txt",)} | more
    return SourceConfig(name="x", kind=kind, package=package, licence="x", language="x", **more)  # type: ignore[arg-type]


def sdist(text: bytes) -> bytes:
    """With a setup.py that must never run."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in {"setup.py": b"raise SystemExit('was run')", "data/a.txt": text}.items():
            info = tarfile.TarInfo(f"tiny_text-1.0/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Index:
    """A package index on this machine: JSON or HTML, honest or not about its hashes."""

    def __init__(self) -> None:
        self.file = sdist(b"hello")
        self.announced: str | None = hashlib.sha256(self.file).hexdigest()
        self.as_html = False
        self.requests: list[str] = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.requests.append(self.path)
                body, kind = index.page(self.path)
                self.send_response(200 if body else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"

    def page(self, path: str) -> tuple[bytes, str]:
        names = ["tiny_text-0.9.tar.gz", "tiny_text-1.0.tar.gz", "tiny_text-1.0-py3-none-any.whl"]
        if path == "/simple/tiny-text/" and self.as_html:
            links = "".join(f'<a href="../../files/{name}#sha256={self.announced}">{name}</a>' for name in names)
            return f"<html>{links}</html>".encode(), "text/html"
        if path == "/simple/tiny-text/":
            hashes = {"sha256": self.announced} if self.announced else {}
            files = [{"filename": name, "url": f"../../files/{name}", "hashes": hashes} for name in names]
            return json.dumps({"files": files}).encode(), "application/vnd.pypi.simple.v1+json"
        return (self.file, "application/gzip") if path == "/files/tiny_text-1.0.tar.gz" else (b"", "text/plain")


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    made = Index()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    monkeypatch.setenv("PIP_INDEX_URL", made.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.mark.parametrize("as_html", [False, True])
def test_a_source_distribution_is_read_and_never_run(index: Index, tmp_path: Path, as_html: bool) -> None:
    index.as_html = as_html
    opened = open_source(source("sdist"), [], tmp_path / "downloads")
    assert [(member.name, member.data) for member in opened.members()] == [("data/a.txt", b"hello")]
    assert opened.facts["version"] == "1.0"
    assert opened.facts["sha256"] == opened.identity == index.announced


def test_what_is_there_is_not_fetched_again(index: Index, tmp_path: Path) -> None:
    first = fetch_package(source("sdist", version="1.0"), tmp_path)
    asked = len(index.requests)
    assert fetch_package(source("sdist", version="1.0"), tmp_path, offline=True) == first
    assert len(index.requests) == asked
    with pytest.raises(HubError, match=r"is not in .* and this run is offline"):
        fetch_package(source("sdist", version="0.9"), tmp_path, offline=True)


def test_a_file_that_changed_since_is_refused(index: Index, tmp_path: Path) -> None:
    package = fetch_package(source("sdist"), tmp_path)
    package.path.write_bytes(sdist(b"other"))
    with pytest.raises(DataError, match=r"has sha256 .*, not .*: delete it"):
        fetch_package(source("sdist"), tmp_path)


def test_a_file_with_another_hash_than_pinned_is_refused_and_not_kept(index: Index, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"source x: tiny_text-1\.0\.tar\.gz has sha256"):
        fetch_package(source("sdist", sha256="0" * 64), tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert fetch_package(source("sdist", sha256=index.announced), tmp_path).sha256 == index.announced


def test_an_index_must_keep_to_the_hash_it_announces(index: Index, tmp_path: Path) -> None:
    index.announced = "0" * 64
    with pytest.raises(HubError, match="but the index announced 0000"):
        fetch_package(source("sdist"), tmp_path)
    index.announced = None
    with pytest.raises(HubError, match="announces no sha256"):
        fetch_package(source("sdist"), tmp_path)


def test_what_is_not_to_be_had_is_said(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HubError, match=r"no source distribution of tiny-text 2\.0"):
        fetch_package(source("sdist", version="2.0"), tmp_path)
    with pytest.raises(HubError, match="cannot be read"):
        fetch_package(source("sdist", "unknown"), tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for kind, client in (("deb", "apt-get"), ("npm", "npm")):
        with pytest.raises(HubError, match=f"needs {client} .*--without"):
            fetch_package(source(kind), tmp_path)


@pytest.mark.parametrize("package", ["--index-url=x", "a b", "../x", "x==1", "http://x"])
@pytest.mark.parametrize("kind", ["wheel", "sdist", "deb", "npm"])
def test_names_that_a_client_could_take_otherwise_are_refused(tmp_path: Path, kind: str, package: str) -> None:
    with pytest.raises(DataError, match="is not a package name"):
        fetch_package(source(kind, package), tmp_path)


def stand_in(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of that name, first in PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_clients_are_asked_for_the_version_and_their_words_are_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = tmp_path / "clients"
    stand_in(clients, "apt-get", 'echo "$@" > tiny_1%3a2.0-1_all.deb', monkeypatch)
    stand_in(clients, "npm", 'echo "$@" > tiny-2.0.1.tgz', monkeypatch)
    package = fetch_package(source("deb", "tiny", version="1:2.0-1"), tmp_path / "d")
    assert package.path.read_text() == "download tiny=1:2.0-1\n"
    package = fetch_package(source("npm", "@org/tiny"), tmp_path / "d")
    assert package.version == "2.0.1"
    assert package.path.read_text().startswith("pack @org/tiny --pack-destination . --ignore-scripts")
    stand_in(clients, "apt-get", "echo 'E: Version not found' >&2; exit 100", monkeypatch)
    with pytest.raises(HubError, match=r"E: Version not found.*apt-cache policy tiny"):
        fetch_package(source("deb", "tiny", version="9"), tmp_path / "d")
