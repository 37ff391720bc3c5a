"""The header of one GGUF file. Every count, size and offset is checked against the file before it is believed."""

import mmap
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np

from deepseek.checkpoint.dtypes import byte_size
from deepseek.checkpoint.file_kinds import SNIFFED_BYTES, describe
from deepseek.checkpoint.gguf.format import (
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_ALIGNMENT,
    MAX_DEPTH,
    MAX_DIMENSIONS,
    MAX_KEYS,
    MAX_LISTED,
    MAX_NAME_BYTES,
    MAX_TENSORS,
    MAX_TEXT_BYTES,
    NUMBER_CODES,
    TENSOR_TYPES,
    UNSUPPORTED_TENSOR_TYPES,
    VERSIONS,
    ValueType,
)
from deepseek.errors import CheckpointError

_LENGTH = struct.Struct("<Q")
_SMALLEST_KEY = 8 + 4 + 1  # a key's length, its type, one byte of value
_SMALLEST_TENSOR = 8 + 4 + 8 + 4 + 8


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies in its file: `offset` counts from the file's beginning. shape: outermost first."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """All that precedes the tensors' bytes. Arrays of numbers are NumPy arrays, all other arrays are lists."""

    metadata: dict[str, Any]
    tensors: dict[str, TensorEntry]


def parse_header(data: mmap.mmap | bytes, where: str) -> Header:
    """Raises CheckpointError, beginning with `where`, at the first thing that is wrong."""
    return _Parser(data, where).header()


def _errors(key: str) -> str:
    """What happens to bytes that are no UTF-8: a vocabulary keeps them for its reader to judge, a label shows them."""
    return "surrogateescape" if key.startswith("tokenizer.") else "replace"


class _Parser:
    def __init__(self, data: mmap.mmap | bytes, where: str) -> None:
        self.data = data
        self.size = len(data)
        self.where = where
        self.at = 0
        self.listed = 0

    def header(self) -> Header:
        self._check_magic_and_version()
        n_tensors = self._count("tensors", MAX_TENSORS, _SMALLEST_TENSOR)
        n_keys = self._count("metadata keys", MAX_KEYS, _SMALLEST_KEY)
        metadata = self._metadata(n_keys)
        alignment = self._alignment(metadata)
        infos = self._tensor_infos(n_tensors)
        return Header(metadata, self._place(infos, alignment))

    def fail(self, message: str) -> NoReturn:
        raise CheckpointError(f"{self.where}: {message}")

    def _check_magic_and_version(self) -> None:
        if self.data[:4] != MAGIC:
            looks = describe(self.data[:SNIFFED_BYTES])
            self.fail(f"not a GGUF file but {looks}" if looks else "not a GGUF file: it does not begin with 'GGUF'")
        if self.size < 24:
            self.fail(f"truncated: {self.size} bytes are no whole header; fetch the file again")
        version: int = struct.unpack_from("<I", self.data, 4)[0]
        self.at = 8
        if version and not version & 0xFFFF:
            self.fail("a big-endian GGUF file; convert it to little-endian (gguf-convert-endian of the gguf package)")
        if version not in VERSIONS:
            self.fail(f"GGUF version {version}; this version reads {' and '.join(map(str, VERSIONS))}: convert it anew")

    def _count(self, what: str, most: int, smallest: int) -> int:
        count: int = self._number("Q", f"the number of {what}")
        if count > most or count * smallest > self.size:
            self.fail(f"the header says {count:,} {what}, more than a file of {self.size:,} bytes can hold")
        return count

    def _number(self, code: str, what: str) -> Any:
        width = struct.calcsize("<" + code)
        self._need(width, what)
        value = struct.unpack_from("<" + code, self.data, self.at)[0]
        self.at += width
        return value

    def _need(self, size: int, what: str) -> None:
        if size > self.size - self.at:
            self.fail(f"truncated: {what} would end at byte {self.at + size:,} of {self.size:,}; fetch the file again")

    def _text(self, what: str, most: int, errors: str = "strict") -> str:
        length = self._number("Q", what)
        if length > most:
            self.fail(f"{what} is {length:,} bytes long; the limit is {most:,}")
        self._need(length, what)
        raw = self.data[self.at : self.at + length]
        self.at += length
        try:
            return raw.decode(errors=errors)
        except UnicodeDecodeError:
            self.fail(f"{what} is not valid UTF-8")

    def _metadata(self, count: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for _ in range(count):
            key = self._text("a metadata key", MAX_NAME_BYTES)
            if key in metadata:
                self.fail(f"the metadata key {key!r} appears twice")
            metadata[key] = self._value(key, self._value_type(key), 0)
        return metadata

    def _value_type(self, key: str) -> ValueType:
        number = self._number("I", f"the type of {key!r}")
        if number not in ValueType.__members__.values():
            self.fail(f"the metadata key {key!r} has the unknown type {number}")
        return ValueType(number)

    def _value(self, key: str, kind: ValueType, depth: int) -> Any:
        if kind is ValueType.STRING:
            return self._text(f"the value of {key!r}", MAX_TEXT_BYTES, _errors(key))
        if kind is ValueType.BOOL:
            return self._boolean(key)
        if kind is ValueType.ARRAY:
            return self._array(key, depth + 1)
        return self._number(NUMBER_CODES[kind], f"the value of {key!r}")

    def _boolean(self, key: str) -> bool:
        value = self._number("B", f"the value of {key!r}")
        if value > 1:
            self.fail(f"the value of {key!r} is {value}, which is neither true nor false")
        return bool(value)

    def _array(self, key: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            self.fail(f"the value of {key!r} nests arrays more than {MAX_DEPTH} deep")
        kind = self._value_type(key)
        length = self._number("Q", f"the length of {key!r}")
        if kind in NUMBER_CODES:
            return self._numbers(key, NUMBER_CODES[kind], length)
        smallest = {ValueType.BOOL: 1, ValueType.STRING: 8, ValueType.ARRAY: 12}[kind]
        self.listed += length
        if self.listed > MAX_LISTED or length * smallest > self.size - self.at:
            self.fail(f"the value of {key!r} has {length:,} elements, more than the file or a sane model holds")
        if kind is ValueType.STRING:
            return self._texts(key, length)
        return [self._value(key, kind, depth) for _ in range(length)]

    def _numbers(self, key: str, code: str, length: int) -> Any:
        dtype = np.dtype("<" + code)
        if length > self.size // dtype.itemsize:
            self.fail(f"the value of {key!r} has {length:,} numbers, more than the file holds")
        self._need(length * dtype.itemsize, f"the value of {key!r}")
        found = np.frombuffer(self.data, dtype, length, self.at).copy()
        self.at += found.nbytes
        return found

    def _texts(self, key: str, count: int) -> list[str]:
        """As `_text`, `count` times: a vocabulary has 300,000 of them, so the loop is flat."""
        data, at, end, unpack, errors = self.data, self.at, self.size, _LENGTH.unpack_from, _errors(key)
        texts: list[str] = []
        try:
            for _ in range(count):
                (length,) = unpack(data, at)
                at += 8
                if length > end - at or length > MAX_TEXT_BYTES:
                    self.fail(f"truncated: text {len(texts)} of {key!r} is {length:,} bytes long")
                texts.append(data[at : at + length].decode(errors=errors))
                at += length
        except struct.error:
            self.fail(f"truncated: text {len(texts)} of {key!r} lies outside the file")
        self.at = at
        return texts

    def _alignment(self, metadata: dict[str, Any]) -> int:
        value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        sane = isinstance(value, int) and 8 <= value <= MAX_ALIGNMENT and value & (value - 1) == 0
        if not sane:
            self.fail(f"general.alignment is {str(value)[:60]}; it must be a power of two from 8 to {MAX_ALIGNMENT:,}")
        return int(value)

    def _tensor_infos(self, count: int) -> dict[str, TensorEntry]:
        """Offsets still count from the beginning of the tensors' bytes."""
        infos: dict[str, TensorEntry] = {}
        for _ in range(count):
            name = self._text("a tensor's name", MAX_NAME_BYTES)
            if name in infos:
                self.fail(f"the tensor {name!r} appears twice")
            shape = self._shape(name)
            dtype = self._tensor_type(name)
            offset = self._number("Q", f"the offset of {name!r}")
            try:
                size = byte_size(dtype, shape)
            except CheckpointError as error:
                self.fail(f"tensor {name!r}: {error}")
            infos[name] = TensorEntry(dtype, shape, offset, size)
        return infos

    def _shape(self, name: str) -> tuple[int, ...]:
        count = self._number("I", f"the shape of {name!r}")
        if not 1 <= count <= MAX_DIMENSIONS:
            self.fail(f"tensor {name!r} has {count} dimensions; GGUF has 1 to {MAX_DIMENSIONS}")
        self._need(8 * count, f"the shape of {name!r}")
        innermost_first = struct.unpack_from(f"<{count}Q", self.data, self.at)
        self.at += 8 * count
        elements = 1
        for length in innermost_first:
            elements *= length
        if not 0 <= elements < 1 << 62:
            self.fail(f"tensor {name!r} has the shape {innermost_first}, of {elements} elements")
        return innermost_first[::-1]

    def _tensor_type(self, name: str) -> str:
        number = self._number("I", f"the type of {name!r}")
        if number in TENSOR_TYPES:
            return TENSOR_TYPES[number]
        known = UNSUPPORTED_TENSOR_TYPES.get(number)
        if known is None:
            return self.fail(f"tensor {name!r} has the unknown type {number}")
        return self.fail(
            f"tensor {name!r} has the type {known}, which this version does not read; requantise the model, "
            f"for instance with llama-quantize to one of {', '.join(TENSOR_TYPES.values())}"
        )

    def _place(self, infos: dict[str, TensorEntry], alignment: int) -> dict[str, TensorEntry]:
        """Make offsets absolute; each must be aligned, inside the file and clear of every other."""
        start = -(-self.at // alignment) * alignment
        end = start + max((info.offset + info.size for info in infos.values()), default=0)
        if end > self.size and infos:
            self.fail(
                f"truncated: {end - self.size:,} of {end:,} bytes are missing, tensors at the end among them; fetch "
                "the file again"
            )
        placed = {}
        for name, info in infos.items():
            if info.offset % alignment:
                self.fail(f"tensor {name!r} is misaligned: its offset {info.offset:,} is not a multiple of {alignment}")
            placed[name] = TensorEntry(info.dtype, info.shape, start + info.offset, info.size)
        self._check_overlap(placed)
        return placed

    def _check_overlap(self, placed: dict[str, TensorEntry]) -> None:
        in_order = sorted(placed.items(), key=lambda item: item[1].offset)
        for (name, entry), (next_name, next_entry) in pairwise(in_order):
            if entry.offset + entry.size > next_entry.offset:
                self.fail(f"the tensors {name!r} and {next_name!r} overlap")
