"""Source distributions from a package index (PEP 503 and 691), without pip, which runs their code to learn their name.

The index is the one that pip is configured with. Only the file's bytes are fetched, and its sha256 must be the one that
the index announces.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from typing import IO, Any

from deepseek.errors import HubError
from deepseek.progress import Report

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_SDIST = (".tar.gz", ".tar.bz2", ".tar.xz", ".zip")
_TIMEOUT_SECONDS = 60
_MAX_PAGE_BYTES = 64 << 20
_CHUNK = 1 << 20


def download_sdist(package: str, version: str | None, folder: Path, report: Report) -> Path:
    """Fetch the source distribution into `folder`. Raises HubError."""
    page = f"{index_url()}/{re.sub(r'[-_.]+', '-', package).lower()}/"
    files = _files_on(page)
    chosen = [name for name in files if _is_sdist_of(name, package, version)]
    if not chosen:
        raise HubError(
            f"the index that pip is configured with has no source distribution of {package} {version or ''}: check the "
            f"name and the version (`pip index versions {package}`)"
        )
    name = max(chosen, key=_age)
    address, sha256 = files[name]
    if sha256 is None:
        raise HubError(f"the index announces no sha256 for {name}: use one that does (`pip config list`)")
    target = folder / name
    hasher = hashlib.sha256()
    with _opened(address, "*/*") as source, target.open("xb") as out:
        total = int(source.headers.get("Content-Length") or 0) or None  # type: ignore[attr-defined]
        done = 0
        while block := source.read(_CHUNK):
            out.write(block)
            hasher.update(block)
            done += len(block)
            report(f"downloading {name}", done, total)
    if hasher.hexdigest() != sha256:
        raise HubError(f"{name} arrived with sha256 {hasher.hexdigest()}, but the index announced {sha256}: run again")
    return target


def index_url() -> str:
    """Of pip's environment or configuration, else pip's own default."""
    if own := os.environ.get("PIP_INDEX_URL"):
        return own.rstrip("/")
    for command in (["-m", "pip", "config", "get", "global.index-url"], ["-c", _DEFAULT_INDEX]):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
        if done.returncode == 0 and (url := done.stdout.strip().strip("'\"")):
            return url.rstrip("/")
    raise HubError("pip, whose index is read, is not here: run `python -m ensurepip`, or set PIP_INDEX_URL")


_DEFAULT_INDEX = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"


def _opened(address: str, accept: str) -> IO[bytes]:
    if urllib.parse.urlsplit(address).scheme not in ("https", "http"):
        raise HubError(f"the index leads to {address!r:.100}, which is not a web address")
    request = urllib.request.Request(address, headers={"Accept": accept, "Accept-Encoding": "identity"})
    try:
        opened: IO[bytes] = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise HubError(f"the index cannot be read ({reason}): check the network and `pip config list`") from error
    return opened


def _files_on(page: str) -> dict[str, tuple[str, str | None]]:
    """Address and sha256 by file name."""
    with _opened(page, _ACCEPT) as source:
        kind = str(source.headers.get("Content-Type"))  # type: ignore[attr-defined]
        text = source.read(_MAX_PAGE_BYTES).decode("utf-8", "replace")
    links: list[tuple[str, str, str | None]]
    if "json" in kind:
        try:
            listed = json.loads(text)["files"]
            links = [(file["filename"], file["url"], file.get("hashes", {}).get("sha256")) for file in listed]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HubError(f"the index's answer is not a list of files ({error}): see `pip config list`") from error
    else:
        parser = _Links()
        parser.feed(text)
        links = parser.links
    return {name: (urllib.parse.urljoin(page, address), sha256) for name, address, sha256 in links if "/" not in name}


class _Links(HTMLParser):
    """Anchors whose text is a file name and whose fragment is its hash."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[tuple[str, str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href: Any = dict(attrs).get("href")
        if tag == "a" and href:
            address, _, fragment = href.partition("#")
            name = urllib.parse.unquote(address.rpartition("/")[2])
            self.links.append((name, address, fragment.removeprefix("sha256=") if "sha256=" in fragment else None))


def _is_sdist_of(name: str, package: str, version: str | None) -> bool:
    suffix = next((suffix for suffix in _SDIST if name.endswith(suffix)), None)
    stem, _, found = name.removesuffix(suffix or "").rpartition("-")
    same = re.sub(r"[-_.]+", "-", stem).lower() == re.sub(r"[-_.]+", "-", package).lower()
    return suffix is not None and same and version in (None, found) and found[:1].isdigit()


def _age(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", name)]
