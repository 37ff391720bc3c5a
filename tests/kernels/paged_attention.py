"""A small paged cache and steps over it, for tests of attention; and attention's definition in float64."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deepseek.kernels import attention
from deepseek.kernels import attention_store as op
from deepseek.kernels.attention import TILE_ROWS
from deepseek.kernels.attention_store import BLOCK, LARGEST_BYTE, LARGEST_VALUE, LONGEST
from deepseek.kernels.plan import STATE_PARTS, STATE_TILES
from deepseek.packing import Floats
from kernel_plans import THREADS_AT_MOST, Plan, floats, int32, room

EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class Shape:
    heads: int = 4
    key_heads: int = 2
    size: int = 64
    window: int = 0
    interleaved: bool = False
    normed: bool = False
    rotated: int | None = None  # elements of a head, all by default
    code_bytes: int = 2

    @property
    def width(self) -> int:
        return -(-self.size // 16) * 16

    @property
    def turned(self) -> int:
        return self.size if self.rotated is None else self.rotated


@dataclass(frozen=True)
class Sequence:
    """Projected rows of all its tokens, and the blocks that hold its keys and values."""

    queries: Floats
    keys: Floats
    values: Floats
    table: list[int]

    @classmethod
    def random(
        cls, rng: np.random.Generator, shape: Shape, tokens: int, table: list[int], size: float = 1
    ) -> "Sequence":
        rows = (shape.heads, shape.key_heads, shape.key_heads)
        drawn = [(rng.standard_normal((tokens, heads * shape.size)) * size).astype(np.float32) for heads in rows]
        return cls(*drawn, table)


@dataclass
class Cache:
    """Blocks of two layers, of which the second is used. Slots of no token hold NaN as factors and any codes."""

    shape: Shape
    blocks: int
    seed: int = 0
    pool: NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        rng, shape = np.random.default_rng(self.seed), self.shape
        self._layer = shape.key_heads * op.head_bytes(shape.width, shape.code_bytes)
        self.pool = room((self.blocks, 2 * self._layer), np.uint8)
        self.pool[...] = 0xFF  # NaN as float32
        self.scale = np.array([shape.size**-0.5], np.float32)
        angles = np.arange(4096)[:, None] * 0.5 ** np.arange(shape.turned // 2)
        self.cosines, self.sines = (np.ascontiguousarray(f(angles), np.float32) for f in (np.cos, np.sin))
        self.norms = rng.standard_normal((2, shape.size)).astype(np.float32)

    def step(
        self, chunks: list[tuple[Sequence, int, int]], *, threads: int = 1, tokens_a_tile: int | None = None,
        in_parts: bool = False,
    ) -> list[Floats]:  # fmt: skip
        """Attention's output for tokens [start, start + count) of each sequence; what came before is in the cache.

        in_parts: the keys of single tokens are divided among the threads and the parts joined.
        """
        shape, count = self.shape, sum(count for _, _, count in chunks)
        rows = [floats(np.concatenate([getattr(sequence, name)[start : start + n] for sequence, start, n in chunks]))
                for name in ("queries", "keys", "values")]  # fmt: skip
        queries, keys, values = rows
        tables = int32(np.zeros((len(chunks), max(len(sequence.table) for sequence, _, _ in chunks))))
        positions, numbers, tiles, first = [], [], [], 0
        group = shape.heads // shape.key_heads
        size = tokens_a_tile or max(1, TILE_ROWS // group)
        for number, (sequence, start, n) in enumerate(chunks):
            tables[number, : len(sequence.table)] = sequence.table
            positions += range(start, start + n)
            numbers += [number] * n
            tiles += [(first + place, min(size, n - place), number) for place in range(0, n, size)]
            first += n
        out = room((count, queries.shape[1]))
        plan = Plan(count)
        plan.state[STATE_TILES] = len(tiles)
        room_for = tables.shape[1] * BLOCK
        plan.state[STATE_PARTS] = attention.parts_of(room_for) if in_parts else 0
        columns = {
            op.QUERIES: queries, op.QUERY_STRIDE: queries.strides[0],
            op.KEYS: keys, op.KEY_STRIDE: keys.strides[0],
            op.VALUES: values, op.VALUE_STRIDE: values.strides[0],
            op.OUT: out, op.OUT_STRIDE: out.strides[0],
            op.HEADS: shape.heads, op.KEY_HEADS: shape.key_heads,
            op.HEAD_DIM: shape.size, op.WIDTH: shape.width,
            op.POOL: self.pool, op.BLOCK_BYTES: self.pool.strides[0],
            op.CACHE_AT: self._layer, op.CODE_BYTES: shape.code_bytes,
            op.POSITIONS: int32(positions), op.CHUNKS: int32(numbers),
            op.TABLES: tables, op.TABLE_STRIDE: tables.strides[0], op.TILES: int32(tiles),
            op.WINDOW: shape.window, op.SCALE: self.scale,
            op.SCRATCH: room((THREADS_AT_MOST, attention.SCRATCH_BYTES), np.uint8),
            op.SCRATCH_STRIDE: attention.SCRATCH_BYTES,
            op.COSINES: self.cosines, op.SINES: self.sines,
            op.ROTATED: shape.turned, op.INTERLEAVED: int(shape.interleaved),
            op.QUERY_NORM: self.norms[0] if shape.normed else 0,
            op.KEY_NORM: self.norms[1] if shape.normed else 0,
            op.EPSILON: np.array([EPSILON], np.float32),
            op.PARTS: room((attention.parts_bytes(shape.heads, shape.width, room_for),), np.uint8),
        }  # fmt: skip
        plan.add(op.rotate_and_store, columns)
        plan.add(attention.attend, columns)
        plan.add(attention.join, columns)
        plan.run(threads)
        assert not out[:, shape.heads * shape.size :].any()
        parts = np.split(out[:, : shape.heads * shape.size], np.cumsum([n for _, _, n in chunks])[:-1])
        return [part.copy() for part in parts]

    def stored(self, table: list[int], tokens: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Keys and values of a sequence as they are in the cache, (tokens, key heads, size)."""
        shape, kind = self.shape, np.dtype(f"i{self.shape.code_bytes}")
        heads = self.pool[table, self._layer :].reshape(len(table), shape.key_heads, -1)
        codes, factors = np.split(heads, [2 * BLOCK * shape.code_bytes * shape.width], axis=-1)
        keys, values = np.split(np.ascontiguousarray(codes).view(kind), 2, axis=-1)
        keys = keys.reshape(*keys.shape[:2], -1, BLOCK, 2).transpose(0, 3, 1, 2, 4)
        values = values.reshape(*values.shape[:2], BLOCK // 2, -1, 2).transpose(0, 2, 4, 1, 3)
        scales = np.ascontiguousarray(factors).view(np.float32).reshape(len(table), shape.key_heads, 2, BLOCK)
        widened = []
        for place, part in enumerate((keys, values)):
            rows = part.reshape(-1, shape.key_heads, shape.width).astype(np.float64)
            factor = scales[:, :, place].transpose(0, 2, 1).reshape(-1, shape.key_heads, 1)
            assert not rows[:tokens, :, shape.size :].any()
            widened.append((rows * factor)[:tokens, :, : shape.size])
        return widened[0], widened[1]

    def _rounding(self, rows: NDArray[np.float64], place: int) -> NDArray[np.float64]:
        """How far a cached number may be from what was stored, (tokens, key heads, 1)."""
        largest = np.abs(rows).max(axis=-1, keepdims=True)
        if self.shape.code_bytes == 1:
            return 0.5 / LARGEST_BYTE * largest
        return (
            0.5 / LONGEST * np.linalg.norm(rows, axis=-1, keepdims=True)
            if place == 0
            else 0.5 / LARGEST_VALUE * largest
        )

    def definition(self, sequence: Sequence) -> NDArray[np.float64]:
        """softmax(q k^T) v of every token, after a step that stored them, with what is in the cache, checked here."""
        shape, tokens = self.shape, len(sequence.queries)
        queries = self._turned(sequence.queries.reshape(tokens, shape.heads, -1), self.norms[0])
        given = (
            self._turned(sequence.keys.reshape(tokens, shape.key_heads, -1), self.norms[1]),
            sequence.values.reshape(tokens, shape.key_heads, -1).astype(np.float64),
        )
        keys, values = self.stored(sequence.table, tokens)
        for place, (wanted, there) in enumerate(zip(given, (keys, values), strict=True)):
            assert (np.abs(there - wanted) <= 1.01 * self._rounding(wanted, place) + 1e-6 * np.abs(wanted).max()).all()
        group = shape.heads // shape.key_heads
        out = np.zeros(queries.shape)
        ahead = np.arange(tokens)[:, None] - np.arange(tokens)
        hidden = (ahead < 0) | ((ahead >= shape.window) if shape.window else False)
        for head in range(shape.heads):
            scores = queries[:, head] @ keys[:, head // group].T * self.scale[0]
            scores[hidden] = -np.inf
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[:, head] = shares / shares.sum(axis=1, keepdims=True) @ values[:, head // group]
        return out.reshape(tokens, -1)

    def _turned(self, heads: Floats, norm: Floats) -> NDArray[np.float64]:
        """(tokens, heads, size) normed and rotated."""
        turned = heads.astype(np.float64)
        if self.shape.normed:
            turned = turned / np.sqrt((turned**2).mean(axis=-1, keepdims=True) + EPSILON) * norm
        pairs = self.shape.turned // 2
        if self.shape.interleaved:
            first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
        else:
            first, second = slice(0, pairs), slice(pairs, 2 * pairs)
        a, b = turned[..., first].copy(), turned[..., second].copy()
        cosines, sines = (table[: len(heads), None].astype(np.float64) for table in (self.cosines, self.sines))
        turned[..., first], turned[..., second] = a * cosines - b * sines, b * cosines + a * sines
        return turned
