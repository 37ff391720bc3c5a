"""Tokens on the disk: one folder a source, mapped into memory, each file with its hash.

A source's folder holds, for the split `train` and the split `held_out`, files SPLIT-00000.bin, SPLIT-00001.bin ... of
little-endian uint16 (uint32 for vocabularies above 65,536), and SPLIT-ends.npy: where each document ends, its end of
text included, counted in tokens from the split's beginning. The folder is written aside and renamed, `shard.json` in it
last, so a folder of that name is whole.
"""

import bisect
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.atomic import sync_folder
from deepseek.errors import DataError
from deepseek.progress import Report, silent

SPLITS = ("train", "held_out")
INDEX = "shard.json"
FILE_TOKENS = 1 << 27  # 256 MB of uint16: small enough to copy, large enough to be few


def token_type(vocab_size: int) -> np.dtype[Any]:
    """The narrowest type on the disk that holds every id."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


class ShardWriter:
    """Writes one source's folder; use as a context manager, then `finish`."""

    def __init__(self, folder: Path, vocab_size: int, file_tokens: int = FILE_TOKENS) -> None:
        self.folder, self.vocab_size = folder, vocab_size
        self.type, self.file_tokens = token_type(vocab_size), file_tokens
        self._aside = folder.with_name(f".{folder.name}.partial")
        self._splits = {split: _SplitWriter(self, split) for split in SPLITS}

    def __enter__(self) -> "ShardWriter":
        shutil.rmtree(self._aside, ignore_errors=True)  # what a killed run left
        self._aside.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        for split in self._splits.values():
            split.close()
        shutil.rmtree(self._aside, ignore_errors=True)

    def add(self, split: str, ids: Sequence[int]) -> None:
        """Append one document, its end of text included."""
        tokens = np.asarray(ids, np.int64)
        assert tokens.size
        assert tokens.min() >= 0
        assert tokens.max() < self.vocab_size
        self._splits[split].add(tokens.astype(self.type))

    def finish(self, key: str) -> dict[str, Any]:
        """Close the files, write the index, rename the folder; returns the index."""
        index = {
            "key": key,
            "dtype": self.type.str,
            "vocab_size": self.vocab_size,
            "splits": {name: split.finish() for name, split in self._splits.items()},
        }
        _write_durably(self._aside / INDEX, json.dumps(index, indent=1).encode())
        sync_folder(self._aside)
        if self.folder.exists():
            shutil.rmtree(self.folder)
        os.replace(self._aside, self.folder)
        sync_folder(self.folder.parent)
        return index

    def path(self, name: str) -> Path:
        return self._aside / name


class _SplitWriter:
    """The numbered files of one split and the ends of its documents."""

    def __init__(self, owner: ShardWriter, split: str) -> None:
        self.owner, self.split = owner, split
        self.files: list[dict[str, Any]] = []
        self.ends: list[int] = []
        self.total = 0
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._in_file = 0

    def add(self, tokens: NDArray[Any]) -> None:
        self.total += tokens.size
        self.ends.append(self.total)
        while tokens.size:
            if self._file is None:
                self._open()
            room = self.owner.file_tokens - self._in_file
            block = tokens[:room].tobytes()
            assert self._file is not None
            self._file.write(block)
            self._hash.update(block)
            self._in_file += min(room, tokens.size)
            tokens = tokens[room:]
            if self._in_file == self.owner.file_tokens:
                self._seal()

    def _open(self) -> None:
        name = f"{self.split}-{len(self.files):05d}.bin"
        self._file = self.owner.path(name).open("xb")
        self._hash, self._in_file = hashlib.sha256(), 0
        self.files.append({"name": name})

    def _seal(self) -> None:
        if self._file is not None:
            self.files[-1] |= {"tokens": self._in_file, "sha256": self._hash.hexdigest()}
            self._file.flush()
            os.fsync(self._file.fileno())
            self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def finish(self) -> dict[str, Any]:
        self._seal()
        path = self.owner.path(f"{self.split}-ends.npy")
        with path.open("xb") as file:
            np.save(file, np.asarray(self.ends, np.int64))
            file.flush()
            os.fsync(file.fileno())
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        ends = {"name": path.name, "sha256": digest}
        return {"tokens": self.total, "documents": len(self.ends), "files": self.files, "ends": ends}


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read_index(folder: Path) -> dict[str, Any] | None:
    """The index of a whole folder whose files have their sizes; None when there is none."""
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        width = np.dtype(index["dtype"]).itemsize
        for split in index["splits"].values():
            for file in split["files"]:
                if (folder / file["name"]).stat().st_size != file["tokens"] * width:
                    return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return index


def damaged_files(folder: Path, report: Report = silent) -> list[str]:
    """Names of files in a source's folder that no longer have the hash they were written with. Reads every byte."""
    index = read_index(folder)
    if index is None:
        return [INDEX]
    bad = []
    for split in index["splits"].values():
        for file in [*split["files"], split["ends"]]:
            with (folder / file["name"]).open("rb") as source:
                if hashlib.file_digest(source, "sha256").hexdigest() != file["sha256"]:
                    bad.append(file["name"])
        report(f"verifying {folder.name}", len(bad), None, "damaged files")
    return bad


class TokenStream:
    """One split of one source: all of its documents, one after another, mapped and never loaded."""

    def __init__(self, folder: Path, split: str, index: Mapping[str, Any]) -> None:
        self._folder, self._split = folder, index["splits"][split]
        dtype = np.dtype(index["dtype"])
        self._starts = [0]
        self._maps = []
        for file in self._split["files"]:
            path = folder / file["name"]
            try:
                self._maps.append(np.memmap(path, dtype, "r", shape=(file["tokens"],)))
            except (OSError, ValueError) as error:
                raise DataError(f"{path}: is missing or cut short ({error}); run `deepseek data` again") from error
            self._starts.append(self._starts[-1] + file["tokens"])
        self.tokens = self._starts[-1]

    def read(self, start: int, stop: int) -> NDArray[np.int64]:
        """Tokens `start` to `stop` - 1."""
        assert 0 <= start <= stop <= self.tokens
        out = np.empty(stop - start, np.int64)
        number = bisect.bisect_right(self._starts, start) - 1
        done = 0
        while done < out.size:
            within = start + done - self._starts[number]
            block = self._maps[number][within : within + out.size - done]
            out[done : done + block.size] = block
            done += block.size
            number += 1
        return out

    def ends(self) -> NDArray[np.int64]:
        """Where each document ends, in tokens; the last is `tokens`."""
        loaded: NDArray[np.int64] = np.load(self._folder / self._split["ends"]["name"])
        return loaded
