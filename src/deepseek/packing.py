"""How a matrix lies in the engine's packed layout: the one definition that `checkpoint` writes and `kernels` read.

Rows are outputs, columns inputs, as in `families.weights`. Rows go in blocks of 16, so that a vector lane is an output
row and no kernel ever sums across lanes. Within a block the inputs go in steps of 64 bytes, ordered (row, input):

    kind   inputs a step   bytes of a step
    int4   8               low nibbles: inputs 0..3, high nibbles: inputs 4..7; byte = 4 * row + input % 4
    int8   4               unsigned codes; byte = 4 * row + input
    bf16   2               16-bit halves; half = 2 * row + input
    f32    1               float = row

Integer kinds have an fp16 scale for each row and group of inputs, and if affine an fp16 minimum. A block is
    scales (groups x 16), minimums (groups x 16) if affine, zeros up to a multiple of 64 bytes, then the steps.
Value: (code - zero_point) * scale when symmetric, code * scale + minimum when affine. Rows are padded with zeros to
whole blocks, inputs to whole groups (bf16: to pairs).
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Kind = Literal["int4", "int8", "bf16", "f32"]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

ROWS = 16  # outputs a block
STEP = 64  # bytes a step: one vector register
GROUPS = (32, 64, 128)

_INPUTS_A_STEP: dict[str, int] = {"int4": 8, "int8": 4, "bf16": 2, "f32": 1}
_ZERO_POINT = {"int4": 8, "int8": 128}


@dataclass(frozen=True, slots=True)
class Packing:
    """kind; group: inputs that share a scale (0 for bf16 and f32); affine: a minimum beside each scale."""

    kind: Kind
    group: int = 0
    affine: bool = False

    def __post_init__(self) -> None:
        assert self.kind in get_args(Kind), self.kind
        assert (self.group in GROUPS) == self.is_integer, self
        assert self.is_integer or not self.affine, self

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int4", "int8")

    @property
    def inputs_a_step(self) -> int:
        return _INPUTS_A_STEP[self.kind]

    @property
    def zero_point(self) -> int:
        """The code of the value 0 in the symmetric form; affine codes have none."""
        return 0 if self.affine else _ZERO_POINT.get(self.kind, 0)

    @property
    def name(self) -> str:
        """`int4-g64`, `int4-g32-affine`, `bf16`: how stores and tables call it."""
        return self.kind + (f"-g{self.group}" if self.group else "") + ("-affine" if self.affine else "")

    @classmethod
    def named(cls, name: str) -> "Packing":
        """The inverse of `name`. Raises ValueError for another text."""
        if name not in _BY_NAME:
            raise ValueError(f"packing {name!r} is unknown; known are {', '.join(_BY_NAME)}")
        return _BY_NAME[name]

    def padded_inputs(self, inputs: int) -> int:
        multiple = self.group or self.inputs_a_step
        return -(-inputs // multiple) * multiple

    def groups(self, inputs: int) -> int:
        return self.padded_inputs(inputs) // self.group if self.group else 0

    def scale_bytes(self, inputs: int) -> int:
        """Of one block: scales, minimums and the padding after them."""
        size = self.groups(inputs) * ROWS * 2 * (2 if self.affine else 1)
        return -(-size // STEP) * STEP

    def block_bytes(self, inputs: int) -> int:
        """From one block of 16 rows to the next."""
        return self.scale_bytes(inputs) + self.padded_inputs(inputs) // self.inputs_a_step * STEP

    def matrix_bytes(self, rows: int, inputs: int) -> int:
        return blocks(rows) * self.block_bytes(inputs)


_BY_NAME = {
    packing.name: packing
    for packing in (
        *(Packing(kind, group, affine) for kind in ("int4", "int8") for group in GROUPS for affine in (False, True)),
        *(Packing("bf16"), Packing("f32")),
    )
}


def blocks(rows: int) -> int:
    return -(-rows // ROWS)


def pack_codes(
    packing: Packing, codes: Bytes, scales: NDArray[np.float16], minimums: NDArray[np.float16] | None
) -> Bytes:
    """The bytes of an integer matrix. codes: (rows, inputs) unsigned; scales, minimums: (rows, groups).

    Padding takes the zero point (affine: code, scale and minimum 0), so that it adds nothing.
    """
    rows, inputs = codes.shape
    groups, padded = packing.groups(inputs), packing.padded_inputs(inputs)
    assert scales.shape == (rows, groups), (scales.shape, rows, groups)
    assert (minimums is not None) == packing.affine
    whole = np.full((blocks(rows) * ROWS, padded), packing.zero_point, np.uint8)
    whole[:rows, :inputs] = codes
    steps = _in_steps(whole, packing)
    out = np.zeros((blocks(rows), packing.block_bytes(inputs)), np.uint8)
    for place, values in enumerate((scales, minimums)):
        if values is not None:
            size = groups * ROWS * 2
            out[:, place * size : (place + 1) * size] = _by_block(values.astype("<f2", copy=False))
    out[:, packing.scale_bytes(inputs) :] = steps
    return out.reshape(-1)


def pack_floats(packing: Packing, values: NDArray[np.uint16] | Floats) -> Bytes:
    """The bytes of a bf16 matrix, given as its 16-bit patterns, or of a float32 one; (rows, inputs)."""
    rows, inputs = values.shape
    whole = np.zeros((blocks(rows) * ROWS, packing.padded_inputs(inputs)), "<u2" if packing.kind == "bf16" else "<f4")
    whole[:rows, :inputs] = values
    step = packing.inputs_a_step
    ordered = whole.reshape(blocks(rows), ROWS, -1, step).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(ordered).reshape(-1).view(np.uint8)


def unpack(packing: Packing, data: Bytes, rows: int, inputs: int) -> Floats:
    """The values, (rows, inputs) in float32: what the kernels compute with. The slow twin of every reader."""
    padded, count = packing.padded_inputs(inputs), blocks(rows)
    stored = data.reshape(count, packing.block_bytes(inputs))
    steps = np.ascontiguousarray(stored[:, packing.scale_bytes(inputs) :])
    if not packing.is_integer:
        raw = steps.view("<u2" if packing.kind == "bf16" else "<f4")
        values = raw.reshape(count, -1, ROWS, packing.inputs_a_step).transpose(0, 2, 1, 3).reshape(count * ROWS, padded)
        if packing.kind == "bf16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return np.ascontiguousarray(values[:rows, :inputs])
    codes = _codes(steps, packing, padded).reshape(count * ROWS, -1, packing.group)
    scales = _group_values(stored, packing, inputs, 0)
    if packing.affine:
        minimums = _group_values(stored, packing, inputs, 1)
        values = codes.astype(np.float32) * scales[:, :, None] + minimums[:, :, None]
    else:
        values = (codes.astype(np.float32) - packing.zero_point) * scales[:, :, None]
    return np.ascontiguousarray(values.reshape(count * ROWS, padded)[:rows, :inputs])


def _in_steps(codes: Bytes, packing: Packing) -> Bytes:
    """(padded rows, padded inputs) codes to (blocks, bytes of the steps)."""
    count = codes.shape[0] // ROWS
    if packing.kind == "int8":
        return codes.reshape(count, ROWS, -1, 4).transpose(0, 2, 1, 3).reshape(count, -1)
    halves = codes.reshape(count, ROWS, -1, 2, 4).transpose(0, 2, 3, 1, 4)
    packed: Bytes = halves[:, :, 0] | (halves[:, :, 1] << np.uint8(4))
    return packed.reshape(count, -1)


def _codes(steps: Bytes, packing: Packing, padded: int) -> Bytes:
    """The inverse of `_in_steps`: (padded rows, padded inputs)."""
    count = steps.shape[0]
    if packing.kind == "int8":
        return steps.reshape(count, -1, ROWS, 4).transpose(0, 2, 1, 3).reshape(-1, padded)
    packed = steps.reshape(count, -1, ROWS, 4)
    halves = np.stack((packed & 15, packed >> 4), axis=2)  # (count, step, half, row, input)
    return halves.transpose(0, 3, 1, 2, 4).reshape(-1, padded)


def _by_block(values: NDArray[np.float16]) -> Bytes:
    """(rows, groups) to (blocks, bytes): 16 rows of one group side by side."""
    rows, groups = values.shape
    whole = np.zeros((blocks(rows) * ROWS, groups), "<f2")
    whole[:rows] = values
    ordered = whole.reshape(-1, ROWS, groups).transpose(0, 2, 1)
    return np.ascontiguousarray(ordered).reshape(ordered.shape[0], -1).view(np.uint8)


def _group_values(stored: Bytes, packing: Packing, inputs: int, place: int) -> Floats:
    """(padded rows, groups) scales (place 0) or minimums (place 1)."""
    groups = packing.groups(inputs)
    size = groups * ROWS * 2
    raw = np.ascontiguousarray(stored[:, place * size : (place + 1) * size]).view("<f2")
    return raw.reshape(-1, groups, ROWS).transpose(0, 2, 1).reshape(-1, groups).astype(np.float32)
