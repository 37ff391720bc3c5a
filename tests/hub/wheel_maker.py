"""Wheels for the tests, sound or broken on purpose."""

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path


def row(name: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}"


def make_wheel(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    package: str = "tiny-model",
    version: str = "1.0",
    record: Mapping[str, str] | None = None,
    extra: Mapping[str, bytes] | None = None,
    links: Mapping[str, str] | None = None,
) -> Path:
    """A wheel that pip accepts. `record` replaces rows of RECORD by member; `extra` members have no row."""
    stem = f"{package.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    members = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = {name: row(name, content) for name, content in members.items()} | dict(record or {})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-py3-none-any.whl"
    record_text = "\n".join([*rows.values(), f"{info}/RECORD,,"]) + "\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, **(extra or {}), f"{info}/RECORD": record_text}.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # no clock: the same bytes each time
        for name, target in (links or {}).items():
            link = zipfile.ZipInfo(name)
            link.external_attr = 0o120777 << 16
            archive.writestr(link, target)
    return path
