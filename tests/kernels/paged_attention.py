"""A small paged cache and steps over it, for tests of attention; and attention's definition in float64."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deepseek.kernels import attention
from deepseek.kernels.attention import BLOCK, TILE_ROWS
from deepseek.kernels.plan import STATE_PARTS, STATE_TILES
from deepseek.packing import Floats
from kernel_plans import THREADS_AT_MOST, Plan, floats, int32, room

EPSILON = 1e-6
F16_MAX = np.float32(65504)


@dataclass(frozen=True, kw_only=True)
class Shape:
    heads: int = 4
    key_heads: int = 2
    size: int = 64
    window: int = 0
    interleaved: bool = False
    normed: bool = False
    rotated: int | None = None  # elements of a head, all by default

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
    """Blocks of two layers, of which the second is used. Slots of no token hold NaN; padding of a head holds zeros."""

    shape: Shape
    blocks: int
    seed: int = 0
    pool: NDArray[np.float16] = field(init=False)

    def __post_init__(self) -> None:
        rng, shape = np.random.default_rng(self.seed), self.shape
        self._half = shape.key_heads * shape.width * BLOCK
        self.pool = room((self.blocks, 4 * self._half), np.float16)
        self.pool[...] = np.nan
        keys = self.pool[:, 2 * self._half : 3 * self._half].reshape(self.blocks, shape.key_heads, shape.width, BLOCK)
        values = self.pool[:, 3 * self._half :].reshape(self.blocks, shape.key_heads, BLOCK, shape.width)
        keys[:, :, shape.size :], values[..., shape.size :] = 0, 0
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
            attention.QUERIES: queries, attention.QUERY_STRIDE: queries.strides[0],
            attention.KEYS: keys, attention.KEY_STRIDE: keys.strides[0],
            attention.VALUES: values, attention.VALUE_STRIDE: values.strides[0],
            attention.OUT: out, attention.OUT_STRIDE: out.strides[0],
            attention.HEADS: shape.heads, attention.KEY_HEADS: shape.key_heads,
            attention.HEAD_DIM: shape.size, attention.WIDTH: shape.width,
            attention.POOL: self.pool, attention.BLOCK_BYTES: self.pool.strides[0],
            attention.KEYS_AT: 4 * self._half, attention.VALUES_AT: 6 * self._half,
            attention.POSITIONS: int32(positions), attention.CHUNKS: int32(numbers),
            attention.TABLES: tables, attention.TABLE_STRIDE: tables.strides[0], attention.TILES: int32(tiles),
            attention.WINDOW: shape.window, attention.SCALE: self.scale,
            attention.SCRATCH: room((THREADS_AT_MOST, attention.SCRATCH_BYTES), np.uint8),
            attention.COSINES: self.cosines, attention.SINES: self.sines,
            attention.ROTATED: shape.turned, attention.INTERLEAVED: int(shape.interleaved),
            attention.QUERY_NORM: self.norms[0] if shape.normed else 0,
            attention.KEY_NORM: self.norms[1] if shape.normed else 0,
            attention.EPSILON: np.array([EPSILON], np.float32),
            attention.PARTS: room((attention.parts_bytes(shape.heads, shape.width, room_for),), np.uint8),
        }  # fmt: skip
        plan.add(attention.rotate_and_store, columns)
        plan.add(attention.attend, columns)
        plan.add(attention.join, columns)
        plan.run(threads)
        assert not out[:, shape.heads * shape.size :].any()
        parts = np.split(out[:, : shape.heads * shape.size], np.cumsum([n for _, _, n in chunks])[:-1])
        return [part.copy() for part in parts]

    def definition(self, sequence: Sequence) -> NDArray[np.float64]:
        """softmax(q k^T) v of every token, after a step that stored them, with the keys as they are in the cache.

        Those are checked here too. A key next to the middle of two halves may be rounded to either.
        """
        shape, tokens = self.shape, len(sequence.queries)
        queries = self._turned(sequence.queries.reshape(tokens, shape.heads, -1), self.norms[0])
        keys = self._turned(sequence.keys.reshape(tokens, shape.key_heads, -1), self.norms[1])
        values = sequence.values.reshape(tokens, shape.key_heads, -1)
        keys, values = (
            np.clip(part.astype(np.float32), -F16_MAX, F16_MAX).astype(np.float16).astype(np.float64)
            for part in (keys, values)
        )
        stored = self.pool[:, 2 * self._half : 3 * self._half].reshape(-1, shape.key_heads, shape.width, BLOCK)
        stored = stored[sequence.table].transpose(0, 3, 1, 2).reshape(-1, shape.key_heads, shape.width)
        stored = stored[:tokens, :, : shape.size].astype(np.float64)
        np.testing.assert_allclose(stored, keys, rtol=2.0**-10, atol=1e-6 * np.abs(keys).max())
        keys = stored
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
