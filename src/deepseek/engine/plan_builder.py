"""Builds the table that a step walks through: weights, buffers and kernels to rows of numbers.

Everything here happens once, when a model is loaded; addresses stay valid because `Memory` keeps what it made.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.packed import PackedStore, PackedTensor
from deepseek.kernels import linear as linear_op
from deepseek.kernels import rows as prepare_op
from deepseek.kernels.linear import activation_group, linear_kernel
from deepseek.kernels.plan import (
    ALWAYS,
    BARRIER,
    COUNTER,
    FUNCTION,
    HINT,
    HINT_BYTES,
    NEVER,
    PRIVATE_ROWS,
    ROW_FIELDS,
    STATE,
    STATE_SLOTS,
    STATE_TEAM,
    STATE_TOKENS,
    WHEN_SHARED,
    Kernel,
)
from deepseek.kernels.team import Job, aligned
from deepseek.packing import Packing, blocks
from deepseek.progress import Report, silent

FLOAT_MULTIPLE = 128  # floats to which rows are padded: the largest group of inputs


class Memory:
    """Buffers that a plan points into, kept alive together."""

    def __init__(self) -> None:
        self.nbytes = 0
        self._kept: list[NDArray[np.generic]] = []

    def zeros(self, count: int, dtype: str) -> NDArray[Any]:
        """At a multiple of 64 bytes, with 64 spare bytes behind."""
        array = aligned(count + 64 // np.dtype(dtype).itemsize, dtype)
        self._kept.append(array)
        self.nbytes += array.nbytes
        return array[:count]

    def keep(self, array: NDArray[np.generic]) -> int:
        """The address of an array made elsewhere."""
        self._kept.append(array)
        return int(array.ctypes.data)

    def number(self, value: float) -> int:
        """The address of a float32."""
        return self.keep(np.array([value], np.float32))


@dataclass(frozen=True)
class Floats:
    """Rows of float32: address, real columns, bytes from row to row; zero beyond the columns."""

    address: int
    columns: int
    stride: int
    array: NDArray[np.float32]  # (rows, stride / 4)


@dataclass(frozen=True)
class Matrix:
    """A packed weight matrix, or several of the same shape at equal distance (`step` bytes: heads)."""

    address: int
    packing: Packing
    rows: int
    inputs: int
    step: int = 0
    bias: int = 0


@dataclass(frozen=True)
class CodesKind:
    """Weights of one kind read the same quantised activations. inputs: padded; zero_point: -1 for affine weights."""

    inputs: int
    group: int
    zero_point: int

    @classmethod
    def of(cls, matrix: Matrix) -> "CodesKind":
        packing = matrix.packing
        zero_point = -1 if packing.affine else packing.zero_point
        return cls(packing.padded_inputs(matrix.inputs), activation_group(packing), zero_point)


@dataclass(frozen=True)
class Codes:
    """Quantised rows: of each row first the codes, then (16-bit activations) those of the rest. Likewise the groups.

    Each thread's own rows (see `plan`) begin `private` bytes after the last thread's; 0 where rows are never private.
    """

    kind: CodesKind
    codes: int
    factors: int
    starts: int
    stride: int
    group_stride: int
    low: int
    low_groups: int
    private: int
    private_groups: int


class PlanBuilder:
    """Collects rows. `rows`: tokens of a step at most. wide: activations in 16 bits instead of 8."""

    def __init__(
        self, store: PackedStore, *, rows: int, threads: int, wide: bool = False, report: Report = silent
    ) -> None:
        self.store = store
        self.rows = rows
        self.threads = threads
        self.wide = wide
        self.memory = Memory()
        self.state = self.memory.zeros(STATE_SLOTS, "int64")
        self.state[STATE_TEAM] = threads
        self._data = int(store.data.ctypes.data)
        self._table: list[dict[int, int]] = []
        self._scratch = self.scratch(linear_op.SCRATCH_BYTES)
        self._one = self.memory.keep(np.array([1], np.int64))
        self._codes: dict[tuple[CodesKind, str, int], Codes] = {}
        self._vectors: dict[str, int] = {}
        self._kernels: set[int] = set()
        self._report = report

    # What weights and buffers there are.

    def vector(self, name: str) -> int:
        """Address of a float32 vector with zeros up to whole rows; 0 if the store has none of that name."""
        if name not in self._vectors:
            tensor = self.store.tensors.get(name)
            self._vectors[name] = 0 if tensor is None else self._padded(tensor)
        return self._vectors[name]

    def _padded(self, tensor: PackedTensor) -> int:
        copy = self.memory.zeros(math.ceil(tensor.inputs / FLOAT_MULTIPLE) * FLOAT_MULTIPLE, "float32")
        stored = self.store.data[tensor.offset : tensor.offset + 4 * tensor.inputs]
        copy[: tensor.inputs] = stored.view(np.float32)
        return int(copy.ctypes.data)

    def matrix(self, name: str) -> Matrix:
        """By its canonical name without `.weight`; its bias goes with it."""
        tensor = self.store.tensors[f"{name}.weight"]
        assert tensor.packing is not None
        return Matrix(
            self._data + tensor.offset, tensor.packing, tensor.rows, tensor.inputs, tensor.nbytes,
            self.vector(f"{name}.bias"),
        )  # fmt: skip

    def floats(self, columns: int, rows: int | None = None) -> Floats:
        rows = rows or self.rows
        width = math.ceil(columns / FLOAT_MULTIPLE) * FLOAT_MULTIPLE
        array = self.memory.zeros(rows * width, "float32").reshape(rows, width)
        return Floats(int(array.ctypes.data), columns, 4 * width, array)

    def scratch(self, bytes_a_thread: int) -> int:
        """Address of memory of which each thread has `bytes_a_thread`."""
        return int(self.memory.zeros(bytes_a_thread * self.threads, "uint8").ctypes.data)

    def codes(self, kind: CodesKind, use: str = "x", rows: int | None = None) -> Codes:
        """The buffer for activations of this kind. use: buffers that hold something at the same time differ in it.

        rows: None for a row a token, private to threads when few; otherwise always shared.
        """
        count = rows or self.rows
        if (kind, use, count) not in self._codes:
            copies = 2 if self.wide else 1
            groups = kind.inputs // kind.group
            stride, group_stride = copies * kind.inputs, 4 * copies * groups
            many = max(count, PRIVATE_ROWS * self.threads)
            self._codes[kind, use, count] = Codes(
                kind,
                codes=int(self.memory.zeros(many * stride, "uint8").ctypes.data),
                factors=int(self.memory.zeros(many * group_stride, "uint8").ctypes.data),
                starts=int(self.memory.zeros(many * group_stride, "uint8").ctypes.data),
                stride=stride,
                group_stride=group_stride,
                low=kind.inputs if self.wide else 0,
                low_groups=4 * groups if self.wide else 0,
                private=0 if rows else PRIVATE_ROWS * stride,
                private_groups=0 if rows else PRIVATE_ROWS * group_stride,
            )
        return self._codes[kind, use, count]

    # What is done with them.

    def add(self, kernel: Kernel, columns: Mapping[int, int], barrier: int = ALWAYS) -> None:
        """One operation; `columns` as the kernel's module names them."""
        if id(kernel) not in self._kernels:  # a first start compiles it, which takes a second or so
            self._report("preparing kernels", len(self._kernels), None, "kernels")
            self._kernels.add(id(kernel))
        fixed = {FUNCTION: kernel.address, BARRIER: barrier, STATE: int(self.state.ctypes.data)}
        self._table.append({**fixed, **columns})

    def barrier(self) -> None:
        """Let the team meet after the last operation."""
        self._table[-1][BARRIER] = ALWAYS

    def prepare(
        self,
        source: Floats,
        *matrices: Matrix,
        norm: int = 0,
        epsilon: float = 0.0,
        normed: Floats | None = None,
        index: int = 0,
        rows_slot: int = STATE_TOKENS,
        use: str = "x",
        rows: int | None = None,
        source_offset: int = 0,
        source_stride: int | None = None,
        columns: int | None = None,
    ) -> dict[CodesKind, Codes]:
        """Norm rows and quantise them in every way that the matrices ask for; `normed` takes the floats.

        index: address of int32 row numbers to gather. Float matrices read `normed` (or `source` if nothing is normed).
        """
        kinds = {CodesKind.of(matrix) for matrix in matrices if matrix.packing.is_integer}
        made = {kind: self.codes(kind, use, rows) for kind in kinds}
        given = {
            prepare_op.SOURCE: source.address + source_offset,
            prepare_op.SOURCE_STRIDE: source.stride if source_stride is None else source_stride,
            prepare_op.INPUTS: source.columns if columns is None else columns,
            prepare_op.ROWS_SLOT: rows_slot,
            prepare_op.ROW_INDEX: index,
            prepare_op.NORM: norm,
            prepare_op.EPSILON: self.memory.number(epsilon),
        }
        outputs = [_codes_columns(codes) | {prepare_op.ALWAYS_SHARED: int(bool(rows))} for codes in made.values()]
        if normed is not None:
            floats = {prepare_op.FLOATS: normed.address, prepare_op.FLOATS_STRIDE: normed.stride}
            outputs.append(floats | {prepare_op.ALWAYS_SHARED: 1})
        for place, output in enumerate(outputs):
            last = place + 1 == len(outputs)
            meets = ALWAYS if rows or normed is not None else WHEN_SHARED
            hint = {HINT: norm, HINT_BYTES: 4 * given[prepare_op.INPUTS] if norm else 0}
            self.add(prepare_op.prepare, given | output | hint, meets if last else NEVER)
        return made

    def linear(
        self,
        x: Mapping[CodesKind, Codes] | Floats,
        matrix: Matrix,
        out: Floats,
        *,
        mode: int = linear_op.STORE,
        second: Matrix | None = None,
        rows_slot: int = STATE_TOKENS,
        segments: NDArray[np.int64] | None = None,
        segment_count: int = 0,
        segments_address: int = 0,
        barrier: int = ALWAYS,
    ) -> None:
        """out = x @ matrix.T, or as `mode` says. second: the matrix of up, for GATED.

        segments: see `kernels.linear`; None: the matrix alone, over all rows. segment_count: address of their number
        where a kernel decides it.
        """
        packing = matrix.packing
        if segments is None and not segments_address:
            pair = second.address if second else 0
            segments = np.array([[matrix.address, pair, 0, 0, 0, -1]], np.int64)
        if segments is not None:
            segments_address = self.memory.keep(segments)
            segment_count = segment_count or self.memory.keep(np.array([len(segments)], np.int64))
        count = blocks(matrix.rows)
        units = count if mode == linear_op.GATED else (count + 1) // 2
        values = {
            linear_op.SEGMENTS: segments_address,
            linear_op.SEGMENT_COUNT: segment_count or self._one,
            linear_op.UNITS: units,
            linear_op.BLOCKS: count,
            linear_op.BLOCK_BYTES: packing.block_bytes(matrix.inputs),
            linear_op.CODES: packing.scale_bytes(matrix.inputs),
            linear_op.OUT: out.address,
            linear_op.OUT_STRIDE: out.stride,
            linear_op.ROWS_SLOT: rows_slot,
            linear_op.MODE: mode,
            linear_op.BIAS: matrix.bias,
            linear_op.SECOND_BIAS: second.bias if second else 0,
            linear_op.SCRATCH: self._scratch,
            linear_op.CHUNK: 1,
        }
        if packing.is_integer:
            assert isinstance(x, Mapping)
            codes = x[CodesKind.of(matrix)]
            values |= {
                linear_op.SCALE_SHIFT: (packing.group // codes.kind.group).bit_length() - 1,
                linear_op.X: codes.codes,
                linear_op.X_STRIDE: codes.stride,
                linear_op.FACTORS: codes.factors,
                linear_op.STARTS: codes.starts,
                linear_op.GROUP_STRIDE: codes.group_stride,
                linear_op.GROUPS: codes.kind.inputs // codes.kind.group,
                linear_op.PRIVATE: codes.private,
                linear_op.PRIVATE_GROUPS: codes.private_groups,
                linear_op.LOW: codes.low,
                linear_op.LOW_GROUPS: codes.low_groups,
            }
        else:
            assert isinstance(x, Floats)
            values |= {
                linear_op.X: x.address,
                linear_op.X_STRIDE: x.stride,
                linear_op.GROUPS: packing.padded_inputs(matrix.inputs) // packing.inputs_a_step,
            }
        self.add(linear_kernel(packing), values, barrier)

    @property
    def operations(self) -> int:
        """How many there are until now."""
        return len(self._table)

    def finish(self) -> Job:
        """The table with its counters."""
        return self.finish_in_parts()[0]

    def finish_in_parts(self, *ends: int) -> list[Job]:
        """A job up to each of `ends`, numbers of operations, and one of the rest; they share state and buffers."""
        self._report("preparing kernels", len(self._kernels), len(self._kernels), "kernels")
        table = self.memory.zeros(len(self._table) * ROW_FIELDS, "int64").reshape(-1, ROW_FIELDS)
        line = 64 * self.threads  # of counters: one cache line for each thread
        counters = self.memory.zeros(line // 8 * len(self._table), "int64")
        for number, columns in enumerate(self._table):
            for column, value in columns.items():
                if column not in (HINT, HINT_BYTES):  # those stand in the row before
                    table[number, column] = value
            table[number, COUNTER] = counters.ctypes.data + line * number
            table[number - 1, [HINT, HINT_BYTES]] = columns.get(HINT, 0), columns.get(HINT_BYTES, 0)
        words, bounds = line // 8, (0, *ends, len(table))
        return [
            Job(table[begin:end], counters[begin * words : end * words], self.state) for begin, end in pairwise(bounds)
        ]


def _codes_columns(codes: Codes) -> dict[int, int]:
    return {
        prepare_op.CODES: codes.codes,
        prepare_op.CODES_STRIDE: codes.stride,
        prepare_op.FACTORS: codes.factors,
        prepare_op.STARTS: codes.starts,
        prepare_op.GROUP_STRIDE: codes.group_stride,
        prepare_op.GROUP: codes.kind.group,
        prepare_op.GROUPS: codes.kind.inputs // codes.kind.group,
        prepare_op.ZERO_POINT: codes.kind.zero_point,
        prepare_op.PRIVATE_CODES: codes.private,
        prepare_op.PRIVATE_GROUPS: codes.private_groups,
        prepare_op.LOW: codes.low,
        prepare_op.LOW_GROUPS: codes.low_groups,
    }
