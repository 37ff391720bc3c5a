"""A store mapped into memory. Its file may be anybody's: nothing is believed before it was checked."""

import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, get_args

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.dtypes import DTYPES
from deepseek.checkpoint.packed.choose import Quantize, RowsType
from deepseek.checkpoint.packed.format import (
    BEGINNING,
    MAGIC,
    MAX_HEADER_BYTES,
    TAIL,
    VERSION,
    Description,
    PackedTensor,
    data_offset,
)
from deepseek.checkpoint.packed.plan import Typed, placed
from deepseek.checkpoint.packed.slots import Slot, expert_prefix, slots_of
from deepseek.checkpoint.packed.typed_config import config_from_json
from deepseek.checkpoint.strict_json import parse_object
from deepseek.config import ModelConfig
from deepseek.errors import CheckpointError, ConfigError
from deepseek.packing import Packing

_AGAIN = "delete it and pack the model again"
_EXPERT_WEIGHTS = ("gate_proj.weight", "up_proj.weight", "down_proj.weight")
_FIELDS = 8
_USED = 24  # bytes of the beginning, which zeros follow


@dataclass(frozen=True, kw_only=True)
class PackedStore:
    """data: the whole file, read-only; tensors by name. Both stay valid when the file is replaced or deleted."""

    path: Path
    about: Description
    tensors: dict[str, PackedTensor]
    data: NDArray[np.uint8]

    @property
    def config(self) -> ModelConfig:
        return self.about.config

    def bytes_of(self, name: str) -> NDArray[np.uint8]:
        """A view of the mapped file."""
        tensor = self.tensors[name]
        return self.data[tensor.offset : tensor.offset + tensor.nbytes]

    def expert_extent(self, layer: int, expert: int) -> tuple[int, int]:
        """Offset, a multiple of 4096, and bytes of an expert's three matrices, which lie behind one another."""
        first, *_, last = (self.tensors[expert_prefix(layer, expert) + weight] for weight in _EXPERT_WEIGHTS)
        return first.offset, last.offset + last.nbytes - first.offset


def open_store(path: Path | str) -> PackedStore:
    """Map a store, without reading its tensors. Raises CheckpointError unless it is whole and exactly what its
    configuration asks for; checksums of tensors are left to `verify_store`."""
    path = Path(path)
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(f"{path}: not a regular file")
            header, start = _read_header(file, status.st_size, str(path))
            about = _description(header, str(path))
            tensors = _tensors(header["tensors"], about.config, start, status.st_size, str(path))
            data = np.memmap(file, np.uint8, mode="r")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be opened ({error.strerror})") from None
    return PackedStore(path=path, about=about, tensors=tensors, data=data)


def is_store(path: Path) -> bool:
    """Whether a file begins as a store does."""
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _open_without_waiting(path: str, flags: int) -> int:
    """A named pipe would otherwise wait for a writer for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_header(file: BinaryIO, size: int, where: str) -> tuple[dict[str, Any], int]:
    """The header and where the data begins."""
    beginning = file.read(BEGINNING.size)
    if len(beginning) < BEGINNING.size or not beginning.startswith(MAGIC):
        raise CheckpointError(f"{where}: not a packed store; {_AGAIN}")
    _, version, crc, length = BEGINNING.unpack(beginning)
    if version != VERSION:
        raise CheckpointError(f"{where}: a packed store of version {version}, this is version {VERSION}; {_AGAIN}")
    if length > MAX_HEADER_BYTES or data_offset(length) > size:
        raise CheckpointError(f"{where}: a header of {length:,} bytes in a file of {size:,}; {_AGAIN}")
    text = file.read(length)
    padding = file.read(data_offset(length) - BEGINNING.size - length)
    if len(text) != length or zlib.crc32(text) != crc or any(padding) or any(beginning[_USED:]):
        raise CheckpointError(f"{where}: the header is damaged; {_AGAIN}")
    header = parse_object(text, where)
    if header.keys() != {"quantize", "source", "config", "tensors"}:
        raise CheckpointError(f"{where}: the header has the keys {', '.join(sorted(header))[:200]}; {_AGAIN}")
    return header, data_offset(length)


def _description(header: dict[str, Any], where: str) -> Description:
    quantize, source, config = header["quantize"], header["source"], header["config"]
    if quantize not in get_args(Quantize) or not isinstance(source, str):
        raise CheckpointError(f"{where}: quantize or source of the header is not of its type; {_AGAIN}")
    try:
        return Description(config=config_from_json(config), quantize=quantize, source=source)
    except (ConfigError, OverflowError) as error:
        raise CheckpointError(f"{where}: config of the header: {error}; {_AGAIN}") from None


def _tensors(rows: Any, config: ModelConfig, start: int, size: int, where: str) -> dict[str, PackedTensor]:
    """Every tensor that the configuration asks for, at the place where `placed` puts it."""
    if not isinstance(rows, list):
        raise CheckpointError(f"{where}: tensors of the header is not a list; {_AGAIN}")
    _check_count(config, len(rows), where)
    slots = list(slots_of(config))
    if len(slots) != len(rows):
        raise CheckpointError(
            f"{where}: {len(rows):,} tensors, but the configuration asks for {len(slots):,}; {_AGAIN}"
        )
    tensors: dict[str, PackedTensor] = {}
    end = start
    for row, (typed, tensor) in zip(rows, placed(_typed(rows, slots, where), start), strict=True):
        name, end = typed.slot.name, tensor.offset + tensor.nbytes
        if row != tensor.row(name, start) or end + TAIL > size:
            raise CheckpointError(f"{where}: tensor {name!r} is not listed as it must lie, or is cut off; {_AGAIN}")
        tensors[name] = tensor
    if end + TAIL != size:
        raise CheckpointError(f"{where}: {size - end - TAIL:,} bytes more than its tensors need; {_AGAIN}")
    return tensors


def _check_count(config: ModelConfig, count: int, where: str) -> None:
    """Refuse numbers of layers, experts and heads that the table cannot bear out, before anything is listed by them."""
    layers = config.num_hidden_layers + config.num_nextn_predict_layers
    needed = layers
    if layers <= count:
        experts = config.moe.n_routed_experts if config.moe else 0
        heads = config.num_attention_heads if config.mla else 0
        needed += sum(3 * experts for layer in range(layers) if config.is_moe_layer(layer)) + 3 * heads * layers
    if needed > count:
        raise CheckpointError(f"{where}: {count:,} tensors are too few for its configuration; {_AGAIN}")


def _typed(rows: list[Any], slots: list[Slot], where: str) -> Iterator[Typed]:
    before: Typed | None = None
    for row, slot in zip(rows, slots, strict=True):
        if not isinstance(row, list) or len(row) != _FIELDS or row[0] != slot.name or row[1] != slot.kind:
            raise CheckpointError(f"{where}: where tensor {slot.name!r} should be there is {str(row)[:80]}; {_AGAIN}")
        typed = _type_of(slot, row[2], _checksum(row[-1]))
        # Kernels step from head to head by one distance.
        if typed is None or (slot.head > 0 and before and typed.packing != before.packing):
            raise CheckpointError(f"{where}: tensor {slot.name!r} of type {str(row[2])[:40]!r}; {_AGAIN}")
        before = typed
        yield typed


def _type_of(slot: Slot, name: Any, crc: int) -> Typed | None:
    if slot.kind == "rows":
        fits = name in get_args(RowsType) and slot.inputs % DTYPES[name.upper()].block_elements == 0
        return Typed(slot, rows_dtype=name, crc=crc) if fits else None
    if slot.kind == "vector":
        return Typed(slot, crc=crc) if name == "f32" else None
    try:
        packing = Packing.named(name)
    except (ValueError, TypeError):
        return None
    return Typed(slot, packing=packing, crc=crc) if slot.role != "sensitive" or packing.kind == "f32" else None


def _checksum(text: Any) -> int:
    """0 for what is none; the comparison with the row as it should be then fails, unless it was "00000000"."""
    well_formed = isinstance(text, str) and len(text) == 8 and text.isalnum() and text.isascii()
    try:
        return int(text, 16) if well_formed else 0
    except ValueError:
        return 0
