"""The file of a store: a fixed beginning, a JSON header, the tensors.

    0    magic, 8 bytes
    8    version, 4 bytes; checksum (CRC-32) of the header, 4 bytes
    16   length of the header, 8 bytes; zeros up to 64
    64   the header; zeros up to a multiple of 4096, where the data begins
    ...  the tensors, in the order of `slots`, each at a multiple of 64, an expert's three at a multiple of 4096
         at least 4096 zeros, so that a vector load at the very end stays inside

All numbers are little-endian. The header has the configuration, how the store was quantised, and of every tensor its
name, kind, type, rows, inputs, offset from the beginning of the data, bytes and checksum (CRC-32).
"""

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deepseek.checkpoint.packed.choose import Quantize, RowsType
from deepseek.checkpoint.packed.slots import Kind
from deepseek.config import ModelConfig
from deepseek.packing import Packing

MAGIC = b"\x93DSPACK\n"
VERSION = 1
BEGINNING = struct.Struct("<8sIIQ40x")
PAGE = 4096
TAIL = 4096
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """Where a tensor lies in `PackedStore.data`, and how to read it.

    packing: of a matrix, None otherwise. rows: outputs; a vector, float32 and padded with zeros, has one.
    rows_dtype: of "rows", which are looked up one by one; q4_0, q4_1 and q8_0 are GGUF's blocks. crc: of its bytes.
    """

    packing: Packing | None
    rows: int
    inputs: int
    offset: int
    nbytes: int
    kind: Kind
    rows_dtype: RowsType | None = None
    crc: int = 0

    @property
    def type_name(self) -> str:
        """int4-g32, bf16, q8_0 ..."""
        return self.packing.name if self.packing else self.rows_dtype or "f32"

    def row(self, name: str, data: int = 0) -> list[Any]:
        """As the header lists it. data: what offsets count from: where the data begins."""
        return [
            *(name, self.kind, self.type_name, self.rows, self.inputs),
            *(self.offset - data, self.nbytes, f"{self.crc:08x}"),
        ]


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the header says beside the tensors. source: the file or folder it was made from, by name."""

    config: ModelConfig
    quantize: Quantize
    source: str


def header_bytes(about: Description, rows: Sequence[Sequence[Any]]) -> bytes:
    """The beginning and the header, up to where the data begins. Its length does not depend on checksums."""
    values = {
        "quantize": about.quantize,
        "source": about.source,
        "config": about.config.to_dict(),
        "tensors": rows,
    }
    header = json.dumps(values, separators=(",", ":"), allow_nan=False).encode()
    beginning = BEGINNING.pack(MAGIC, VERSION, zlib.crc32(header), len(header))
    return (beginning + header).ljust(data_offset(len(header)), b"\0")


def data_offset(header_length: int) -> int:
    return aligned(BEGINNING.size + header_length, PAGE)


def aligned(position: int, multiple: int) -> int:
    return -(-position // multiple) * multiple
