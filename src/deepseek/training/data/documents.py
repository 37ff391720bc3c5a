"""Cleaned documents of one source on the disk: what later passes read instead of reading the source again.

A folder holds text.bin (UTF-8, one document after another) and, a record a document, ends.bin (bytes), digests.bin and
bands.bin (see `duplicates`). It is written aside and renamed, source.json in it last.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.atomic import sync_folder
from deepseek.training.data import duplicates

INDEX = "source.json"
_RECORDS = {"ends": ("<u8", 1), "digests": ("<u8", 2), "bands": ("<u8", duplicates.BANDS)}


class DocumentWriter:
    """Writes one source's folder; use as a context manager, then `finish`."""

    def __init__(self, folder: Path, shingle_words: int) -> None:
        self.folder, self.shingle_words = folder, shingle_words
        self.documents = self.bytes = 0
        self._aside = folder.with_name(f".{folder.name}.partial")

    def __enter__(self) -> "DocumentWriter":
        shutil.rmtree(self._aside, ignore_errors=True)  # what a killed run left
        self._aside.mkdir(parents=True)
        self._files = {name: (self._aside / f"{name}.bin").open("xb") for name in ("text", *_RECORDS)}
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._aside, ignore_errors=True)

    def add(self, text: str) -> None:
        data = text.encode()
        self._files["text"].write(data)
        self.documents, self.bytes = self.documents + 1, self.bytes + len(data)
        bands = duplicates.bands(duplicates.shingles(text, self.shingle_words))
        for name, record in {"ends": [self.bytes], "digests": duplicates.digest(text), "bands": bands}.items():
            self._files[name].write(np.asarray(record, _RECORDS[name][0]).tobytes())

    def finish(self, index: dict[str, Any]) -> None:
        """Flush all of it to the disk, write the index and rename the folder."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        facts = {**index, "documents": self.documents, "bytes": self.bytes}
        with (self._aside / INDEX).open("x", encoding="utf-8") as written:
            json.dump(facts, written, ensure_ascii=False, indent=1)
            written.flush()
            os.fsync(written.fileno())
        sync_folder(self._aside)
        if self.folder.exists():
            shutil.rmtree(self.folder)
        os.replace(self._aside, self.folder)
        sync_folder(self.folder.parent)


class DocumentStore:
    """Reads such a folder, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        self.index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        count: int = self.index["documents"]
        self._text = _mapped(folder / "text.bin", np.dtype("u1"), (self.index["bytes"],))
        self.ends, self.digests, self.bands = (
            _mapped(folder / f"{name}.bin", np.dtype(kind), (count, width)) for name, (kind, width) in _RECORDS.items()
        )

    def __len__(self) -> int:
        count: int = self.index["documents"]
        return count

    def size(self, number: int) -> int:
        """Bytes of a document."""
        return int(self.ends[number, 0]) - self._start(number)

    def _start(self, number: int) -> int:
        return int(self.ends[number - 1, 0]) if number else 0

    def text(self, number: int) -> str:
        return self._text[self._start(number) : int(self.ends[number, 0])].tobytes().decode()

    def texts(self, numbers: NDArray[np.intp]) -> Iterator[str]:
        return (self.text(int(number)) for number in numbers)


def _mapped(path: Path, kind: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return np.memmap(path, kind, "r", shape=shape) if 0 not in shape else np.empty(shape, kind)


def key_on_disk(folder: Path) -> str | None:
    """The key that a finished folder was written with; None when there is none."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        sizes = {name: index["documents"] * width * 8 for name, (_, width) in _RECORDS.items()}
        whole = all((folder / f"{name}.bin").stat().st_size == size for name, size in sizes.items())
        whole = whole and (folder / "text.bin").stat().st_size == index["bytes"]
        return str(index["key"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
