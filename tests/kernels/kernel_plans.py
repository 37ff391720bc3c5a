"""Small plans for tests of kernels: rows of a table from arrays, run by a team, nothing of the engine.

    plan = Plan(tokens=5)
    x = floats(rng.standard_normal((5, 100)))                  # padded as the engine pads
    matrix = random_matrix(rng, "int4-g32", rows=48, inputs=100)
    activations = plan.prepare(x, matrix)
    out = plan.linear(activations, matrix)
    plan.run(threads=2)

For another kernel: `plan.add(kernel, {module.COLUMN: value, ...})`; a value is a number or an array, whose address is
taken and which is kept alive.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepseek.kernels import linear, rows
from deepseek.kernels.plan import (
    ALWAYS,
    BARRIER,
    COUNTER,
    FUNCTION,
    PRIVATE_ROWS,
    ROW_FIELDS,
    STATE,
    STATE_SLOTS,
    STATE_TEAM,
    Kernel,
)
from deepseek.kernels.team import Job, aligned, team_of
from deepseek.packing import Bytes, Floats, Packing, blocks, pack_codes, pack_floats, unpack

THREADS_AT_MOST = 3
ROWS_OF_COUNTERS = 512
PAGE = 4096


def room(shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray[Any]:
    """Zeros at an address that is a multiple of 64, with 64 bytes after the last."""
    count = int(np.prod(shape))
    return aligned(count + 64 // np.dtype(dtype).itemsize, dtype)[:count].reshape(shape)


def floats(values: Any, rows_at_least: int = 0) -> Floats:
    """Rows of float32 as the engine keeps them: row strides in multiples of 128 floats, zeros beyond the columns."""
    values = np.atleast_2d(np.asarray(values, np.float32))
    out = room((max(len(values), rows_at_least), -(-values.shape[1] // 128) * 128))
    out[: len(values), : values.shape[1]] = values
    return out


def int32(values: Any) -> NDArray[np.int32]:
    """Row numbers, positions, token ids."""
    out = room(np.shape(values), np.int32)
    out[...] = values
    return out


@dataclass(frozen=True)
class Matrix:
    """A packed matrix with what it was made of. codes, scales, minimums: None where the packing has none."""

    packing: Packing
    rows: int
    inputs: int
    data: Bytes
    codes: Bytes | None = None
    scales: NDArray[np.float16] | None = None
    minimums: NDArray[np.float16] | None = None

    @property
    def values(self) -> Floats:
        return unpack(self.packing, self.data, self.rows, self.inputs)

    @property
    def padded_inputs(self) -> int:
        return self.packing.padded_inputs(self.inputs)

    @property
    def out_columns(self) -> int:
        return -(-self.rows // 128) * 128


def random_matrix(rng: np.random.Generator, packing: Packing | str, *, rows: int, inputs: int) -> Matrix:
    """Codes over their whole range, scales of both signs."""
    packing = Packing.named(packing) if isinstance(packing, str) else packing
    if packing.is_integer:
        codes = rng.integers(0, 16 if packing.kind == "int4" else 256, (rows, inputs), dtype=np.uint8)
        shape = (rows, packing.groups(inputs))
        scales = ((rng.random(shape) * 0.01 + 0.001) * rng.choice([-1, 1], shape)).astype(np.float16)
        minimums = (rng.standard_normal(shape) * 0.1).astype(np.float16) if packing.affine else None
        return integer_matrix(packing, codes, scales, minimums)
    return float_matrix(packing, rng.standard_normal((rows, inputs)))


def integer_matrix(
    packing: Packing, codes: Bytes, scales: NDArray[np.float16], minimums: NDArray[np.float16] | None = None
) -> Matrix:
    return Matrix(
        packing, *codes.shape, _settled(pack_codes(packing, codes, scales, minimums)), codes, scales, minimums
    )


def float_matrix(packing: Packing, values: Any) -> Matrix:
    """bf16: the upper halves of the values' bits."""
    values = np.ascontiguousarray(values, np.float32)
    raw = (values.view(np.uint32) >> 16).astype(np.uint16) if packing.kind == "bf16" else values
    return Matrix(packing, *values.shape, _settled(pack_floats(packing, raw)))


def _settled(data: Bytes) -> Bytes:
    out = room(data.shape, np.uint8)
    out[:] = data
    return out


@dataclass(frozen=True)
class Activations:
    """What `prepare` writes and `linear` reads. Private copies of threads lie `private` bytes apart."""

    floats: Floats
    codes: NDArray[np.int8]
    factors: Floats
    starts: NDArray[np.int32]
    columns: Mapping[int, Any]  # of the linear operation


class Plan:
    """A table that grows by a row an operation, its counters and its state. tokens: rows that the step is about."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.state = room((STATE_SLOTS,), np.int64)
        self.state[0] = tokens
        self.counters = room((ROWS_OF_COUNTERS, THREADS_AT_MOST, 8), np.int64)
        self.table = room((0, ROW_FIELDS), np.int64)
        self._kept: list[Any] = [self.state, self.counters]

    def add(self, kernel: Kernel, columns: Mapping[int, Any], barrier: int = ALWAYS) -> None:
        """Append an operation with its own work counter."""
        table = room((len(self.table) + 1, ROW_FIELDS), np.int64)
        table[:-1] = self.table
        first = {FUNCTION: kernel.address, COUNTER: self.counters[len(self.table)], BARRIER: barrier, STATE: self.state}
        for column, value in {**first, **columns}.items():
            table[-1, column] = self._number(value)
        self.table = table

    def set(self, column: int, value: Any, row: int = -1) -> None:
        """Change an operation, the last by default."""
        self.table[row, column] = self._number(value)

    def run(self, threads: int = 1, rounds: int = 1) -> bool:
        """Whether it was cancelled. Products divide their work among the threads beforehand, as in the engine."""
        self.state[STATE_TEAM] = threads
        job = Job(self.table, self.counters.reshape(-1), self.state)
        return team_of(threads).run(job, shared=self.tokens > PRIVATE_ROWS, rounds=rounds)

    def _number(self, value: Any) -> int:
        if isinstance(value, np.ndarray):
            self._kept.append(value)
            return int(value.ctypes.data)
        return int(value)

    def prepare(
        self, x: Floats, matrix: Matrix, *, norm: Floats | None = None, epsilon: float = 1e-5, low: bool = False,
        index: NDArray[np.int32] | None = None,
    ) -> Activations:  # fmt: skip
        """Rows of x (gathered by index) normed and quantised for `matrix`; for a float matrix only normed."""
        packing, padded = matrix.packing, matrix.padded_inputs
        group = linear.activation_group(packing) if packing.is_integer else 1
        groups = padded // group if packing.is_integer else 0
        places = max(self.tokens, PRIVATE_ROWS * THREADS_AT_MOST)
        normed = room((places, x.shape[1]))
        codes = room((2, places, padded), np.int8)
        factors, starts = room((2, places, groups)), room((2, places, groups), np.int32)
        integer = packing.is_integer
        columns: dict[int, Any] = {
            rows.SOURCE: x,
            rows.SOURCE_STRIDE: x.strides[0],
            rows.INPUTS: matrix.inputs,
            rows.ROW_INDEX: 0 if index is None else index,
            rows.NORM: 0 if norm is None else norm,
            rows.EPSILON: np.array([epsilon], np.float32),
            rows.FLOATS: normed,
            rows.FLOATS_STRIDE: normed.strides[0],
            rows.CODES: codes if integer else 0,
            rows.CODES_STRIDE: padded,
            rows.FACTORS: factors,
            rows.STARTS: starts,
            rows.GROUP_STRIDE: 4 * groups,
            rows.GROUP: group,
            rows.GROUPS: groups,
            rows.ZERO_POINT: -1 if packing.affine else packing.zero_point,
            rows.PRIVATE_FLOATS: PRIVATE_ROWS * normed.strides[0],
            rows.PRIVATE_CODES: PRIVATE_ROWS * padded,
            rows.PRIVATE_GROUPS: PRIVATE_ROWS * 4 * groups,
            rows.LOW: codes.strides[0] if low else 0,
            rows.LOW_GROUPS: factors.strides[0] if low else 0,
        }
        self.add(rows.prepare, columns, barrier=2)
        source = codes if integer else normed
        return Activations(normed, codes, factors, starts, {
            linear.X: source,
            linear.X_STRIDE: padded if integer else normed.strides[0],
            linear.FACTORS: factors,
            linear.STARTS: starts,
            linear.GROUP_STRIDE: 4 * groups,
            linear.GROUPS: groups if integer else padded // packing.inputs_a_step,
            linear.SCALE_SHIFT: (packing.group // group).bit_length() - 1 if integer else 0,
            linear.PRIVATE: PRIVATE_ROWS * (padded if integer else normed.strides[0]),
            linear.PRIVATE_GROUPS: PRIVATE_ROWS * 4 * groups,
            linear.LOW: columns[rows.LOW],
            linear.LOW_GROUPS: columns[rows.LOW_GROUPS],
        })  # fmt: skip

    def linear(
        self, activations: Activations, matrix: Matrix, *, second: Matrix | None = None, mode: int = linear.STORE,
        out: Floats | None = None, bias: Floats | None = None, second_bias: Floats | None = None, chunk: int = 1,
    ) -> Floats:  # fmt: skip
        """One product; second: the `up` matrix of mode GATED, for which `matrix` is the gate. Returns where it goes."""
        out = room((self.tokens, matrix.out_columns)) if out is None else out
        gated, count = mode == linear.GATED, blocks(matrix.rows)
        assert gated == (second is not None)
        segment = room((linear.SEGMENT_FIELDS,), np.int64)
        segment[:] = (matrix.data.ctypes.data, second.data.ctypes.data if second else 0, 0, 0, 0, -1)
        self._kept += [matrix.data, second]
        self.add(linear.linear_kernel(matrix.packing), {
            **activations.columns,
            linear.SEGMENTS: segment,
            linear.SEGMENT_COUNT: np.array([1], np.int64),
            linear.UNITS: count if gated else (count + 1) // 2,
            linear.BLOCKS: count,
            linear.BLOCK_BYTES: matrix.packing.block_bytes(matrix.inputs),
            linear.CODES: matrix.packing.scale_bytes(matrix.inputs),
            linear.OUT: out,
            linear.OUT_STRIDE: out.strides[0],
            linear.MODE: mode,
            linear.BIAS: 0 if bias is None else bias,
            linear.SECOND_BIAS: 0 if second_bias is None else second_bias,
            linear.SCRATCH: room((THREADS_AT_MOST, linear.SCRATCH_BYTES), np.uint8),
            linear.CHUNK: chunk,
        })  # fmt: skip
        return out
