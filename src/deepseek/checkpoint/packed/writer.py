"""Writing a store: tensor after tensor, a few megabytes in memory, beside its place and renamed when all is there."""

import shutil
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, get_args

from deepseek.checkpoint.atomic import atomic_file
from deepseek.checkpoint.checkpoint import Checkpoint
from deepseek.checkpoint.mapped import release_pages
from deepseek.checkpoint.packed.choose import Quantize
from deepseek.checkpoint.packed.convert import Piece, matrix_pieces, rows_pieces, vector_pieces
from deepseek.checkpoint.packed.format import TAIL, Description, PackedTensor, header_bytes
from deepseek.checkpoint.packed.plan import Typed, placed, typed_slots
from deepseek.checkpoint.packed.source import Source
from deepseek.checkpoint.tensor import RawTensor
from deepseek.errors import CheckpointError
from deepseek.packing import Bytes
from deepseek.progress import Report, silent

_SPARE_BYTES = 16 << 20  # what the file system needs itself
_LABEL = "packing weights"
_THREADS = 2  # more would wait for the disk and for Python
_AHEAD = 4  # pieces that are worked on while another is written

Planned = Sequence[tuple[Typed, PackedTensor]]


@dataclass(frozen=True, slots=True)
class _Job:
    """A piece of tensor `index`. Its errors name the weight."""

    index: int
    path: Path
    weight: str
    piece: Piece

    def run(self) -> Bytes:
        with _naming(self.path, self.weight):
            return self.piece()


def write_store(path: Path, checkpoint: Checkpoint, *, quantize: Quantize = "auto", report: Report = silent) -> None:
    """Write the store of a checkpoint to `path`, replacing what is there.

    An error, a kill or a full disk leaves an earlier store as it was. Raises CheckpointError naming the tensor.
    """
    if quantize not in get_args(Quantize):
        raise CheckpointError(f"quantize is {quantize!r}; it must be one of {', '.join(get_args(Quantize))}")
    source = Source(checkpoint)
    source.check_copies()
    planned = list(placed(typed_slots(source, quantize)))
    about = Description(config=checkpoint.config, quantize=quantize, source=checkpoint.path.name)
    header = header_bytes(about, _rows(planned, [0] * len(planned)))
    total = planned[-1][1].offset + planned[-1][1].nbytes
    _check_space(path, len(header) + total + TAIL)
    with atomic_file(path) as file:
        file.write(header)
        checksums = _write_tensors(file, source, planned, report, total)
        file.write(bytes(TAIL))
        file.seek(0)
        file.write(header_bytes(about, _rows(planned, checksums)))
    report(_LABEL, total, total)


def _rows(planned: Planned, checksums: Sequence[int]) -> list[list[Any]]:
    listed = zip(planned, checksums, strict=True)
    return [replace(tensor, crc=crc).row(typed.slot.name) for (typed, tensor), crc in listed]


def _write_tensors(file: BinaryIO, source: Source, planned: Planned, report: Report, total: int) -> list[int]:
    """The checksum of each. The file stands where the data begins, at offset 0 of the tensors."""
    checksums = [0] * len(planned)
    reached = 0
    for index, data in _in_order(_jobs(source, planned)):
        offset = planned[index][1].offset
        if reached < offset:
            file.write(bytes(offset - reached))
            reached = offset
        file.write(data.data)
        checksums[index] = zlib.crc32(data.data, checksums[index])
        reached += data.nbytes
        report(_LABEL, min(reached, total - 1), total)
    assert reached == total, (reached, total)
    return checksums


def _in_order(jobs: Iterable[_Job]) -> Iterator[tuple[int, Bytes]]:
    """Index and bytes of each job, computed by a few threads ahead of who takes them."""
    ahead: deque[tuple[int, Future[Bytes]]] = deque()
    with ThreadPoolExecutor(_THREADS, "packing") as threads:
        try:
            for job in jobs:
                ahead.append((job.index, threads.submit(job.run)))
                if len(ahead) > _AHEAD:
                    index, future = ahead.popleft()
                    yield index, future.result()
            while ahead:
                index, future = ahead.popleft()
                yield index, future.result()
        finally:
            for _, future in ahead:
                future.cancel()


def _jobs(source: Source, planned: Planned) -> Iterator[_Job]:
    path = source.checkpoint.path
    read: deque[RawTensor] = deque()
    for index, (typed, _) in enumerate(planned):
        weight = typed.slot.weight
        with _naming(path, weight):
            tensor = source.tensor(typed.slot)
        for piece in _pieces(tensor, typed):
            yield _Job(index, path, weight, piece)
        read.append(tensor)
        if len(read) > _AHEAD:  # none of its pieces is at work any more
            release_pages(read.popleft().data)


def _pieces(tensor: RawTensor, typed: Typed) -> Iterator[Piece]:
    if typed.packing is not None:
        return matrix_pieces(tensor, typed.packing)
    return rows_pieces(tensor, typed.rows_dtype) if typed.rows_dtype else vector_pieces(tensor)


@contextmanager
def _naming(path: Path, weight: str) -> Iterator[None]:
    try:
        yield
    except CheckpointError as error:
        raise error if weight in str(error) else CheckpointError(f"{path}: tensor {weight!r}: {error}") from None


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < needed + _SPARE_BYTES:
        raise CheckpointError(
            f"{path}: the packed store needs {needed / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB left; free "
            "some space, or choose another disk (DEEPSEEK_CACHE; pack --output). Nothing was changed"
        )
