"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): the cache, and what goes before attention.

What is cached of a token is one latent and one rotated key for all heads. Attention has two forms that differ in the
last bits (docs/decisions/010): tokens of a prompt are computed expanded (`latent_expanded`), generated ones absorbed
(`latent_absorbed`). In a step the absorbed rows come first: rows 0 to STATE_ABSORBED_TILES - 1.

Cache of one layer in one block of tokens, all halves:
    latents     (BLOCK, width)      latent, rotated key, zeros up to whole vectors
    index keys  (BLOCK, index width)    only with a sparse indexer
A token is a row, and scores are summed over lanes at their end: no transposed copy, and any set of tokens can be taken.

Sizes and tables that all layers share stand in one array of int64 that every operation points to: SHARED.
"""

import math
from dataclasses import dataclass

from numba import njit

from deepseek.config import ModelConfig
from deepseek.kernels.attention_store import BLOCK, rotate_in_place, scale_row
from deepseek.kernels.memory import as_f32, copy_bytes, field, get_f32, get_i32, get_i64, put_f16, put_f32
from deepseek.kernels.plan import STATE, STATE_ABSORBED_TILES, kernel, take
from deepseek.kernels.rows import norm_factor, quantise_group
from deepseek.kernels.vectors import LANES, clamp, fma, load_f32, mul, splat_f32, store_f16, store_f32, sum_lanes

# Slots of the shared array.
(HEADS, RANK, NOPE, ROPE, VALUE, WIDTH, POOL, POOL_BLOCK, TABLES, TABLE_STRIDE, POSITIONS, CHUNKS, TILES, COSINES,
 SINES, INTERLEAVED, SCALE, EPSILON, HEADS_A_UNIT, CHOSEN, CHOSEN_STRIDE, INDEX_HEADS, INDEX_DIM, INDEX_WIDTH,
 INDEX_AT, INDEX_TOPK) = range(26)  # fmt: skip
SHARED_SLOTS = 32
"""WIDTH: halves of a cached token. POOL: cache, POOL_BLOCK bytes a block. TABLES: int32 block numbers, TABLE_STRIDE
bytes a chunk. POSITIONS, CHUNKS: int32 of each row. TILES: int32 (first row, rows, chunk) of each expanded chunk,
STATE_EXPANDED_TILES of them. COSINES, SINES: (positions, ROPE / 2) float32. SCALE: of the softmax; EPSILON: of the
latent's norm; addresses of a float32. HEADS_A_UNIT: of absorbed attention. With a sparse indexer (see `indexer`), all 0
otherwise: CHOSEN: bits of the tokens that a row attends to, CHOSEN_STRIDE bytes a row, valid from position INDEX_TOPK
on; INDEX_WIDTH: halves of a cached key, INDEX_AT: bytes from the layer's cache to the first."""

SHARED, CACHE_AT = 4, 5  # columns of every operation here; CACHE_AT: this layer's offset in a cache block

# Columns of `store_latent`. Queries and latents as projected; NORM: the latent's weights. Then where the unrotated
# parts of absorbed queries go, a row for each (row, head): FLOATS, or if that is 0 quantised as `rows.prepare` does.
(QUERIES, QUERY_STRIDE, LATENTS, LATENT_STRIDE, NORM, FLOATS, FLOATS_STRIDE, CODES, CODES_STRIDE, FACTORS, STARTS,
 GROUP_STRIDE, GROUP, GROUPS, ZERO_POINT, LOW, LOW_GROUPS, SCRATCH, SCRATCH_BYTES) = range(6, 25)  # fmt: skip

TILE_HEADS = 4  # heads that one tile of scores takes
F16_MAX = 65504.0
_INLINE = {"nogil": True, "error_model": "numpy"}


def whole_vectors(count: int) -> int:
    return math.ceil(count / LANES) * LANES


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentCache:
    """How one layer's cache of latent attention lies in a block of BLOCK tokens; sizes in halves and bytes."""

    width: int
    index_width: int

    @classmethod
    def of(cls, config: ModelConfig) -> "LatentCache":
        assert config.mla is not None
        width = whole_vectors(config.mla.kv_lora_rank + config.mla.qk_rope_head_dim)
        index = config.indexer
        return cls(width=width, index_width=0 if index is None else whole_vectors(index.index_head_dim))

    @property
    def index_at(self) -> int:
        """Bytes from the layer's start to its index keys."""
        return 2 * BLOCK * self.width

    @property
    def nbytes(self) -> int:
        """Of one layer in one block; a multiple of 64."""
        return 2 * BLOCK * (self.width + self.index_width)


def latent_cache_bytes(config: ModelConfig) -> int:
    """Bytes that one layer takes in a cache block of BLOCK tokens."""
    return LatentCache.of(config).nbytes


@njit(**_INLINE)
def shared(op: int, slot: int) -> int:
    return get_i64(field(op, SHARED) + 8 * slot)


@njit(**_INLINE)
def cached_block(op: int, chunk: int, number: int) -> int:
    """Address of this layer's part of the block with that number in a chunk's sequence."""
    block = get_i32(shared(op, TABLES) + chunk * shared(op, TABLE_STRIDE) + 4 * number)
    return shared(op, POOL) + block * shared(op, POOL_BLOCK) + field(op, CACHE_AT)


@njit(**_INLINE)
def chosen_of(op: int, row: int, position: int) -> int:
    """Address of the bits of the tokens that a row attends to, an int32 a block; 0: to all up to its own."""
    if shared(op, CHOSEN) == 0 or position < shared(op, INDEX_TOPK):
        return 0
    return shared(op, CHOSEN) + row * shared(op, CHOSEN_STRIDE)


@kernel
def store_latent(op: int, me: int) -> None:
    """Norm the latent and rotate the key into the cache; scale and rotate the queries in place.

    Of absorbed rows the unrotated parts of the queries are put where the absorbing product reads them.
    """
    rows, heads = get_i64(field(op, STATE)), shared(op, HEADS)
    units = 1 + (heads + TILE_HEADS - 1) // TILE_HEADS
    scratch = field(op, SCRATCH) + me * field(op, SCRATCH_BYTES)
    unit = take(op, 1)
    while unit < rows * units:
        row, part = unit // units, unit % units
        position = get_i32(shared(op, POSITIONS) + 4 * row)
        pairs = shared(op, ROPE) // 2
        cosines = shared(op, COSINES) + 4 * pairs * position
        sines = shared(op, SINES) + 4 * pairs * position
        if part == 0:
            _store_row(op, row, position, cosines, sines)
        else:
            first = (part - 1) * TILE_HEADS
            for head in range(first, min(first + TILE_HEADS, heads)):
                _turn_query(op, row, head, cosines, sines, scratch)
        unit = take(op, 1)


@njit(**_INLINE)
def _store_row(op: int, row: int, position: int, cosines: int, sines: int) -> None:
    source = field(op, LATENTS) + row * field(op, LATENT_STRIDE)
    rank, rope, width = shared(op, RANK), shared(op, ROPE), shared(op, WIDTH)
    block = cached_block(op, get_i32(shared(op, CHUNKS) + 4 * row), position // BLOCK)
    target = block + 2 * width * (position % BLOCK)
    factor = norm_factor(_square_sum(source, rank), rank, get_f32(shared(op, EPSILON)))
    scale_row(source, rank, field(op, NORM), factor)
    rotate_in_place(source + 4 * rank, rope // 2, cosines, sines, shared(op, INTERLEAVED))
    store_halves(source, rank + rope, width, target)


@njit(**_INLINE)
def _square_sum(source: int, count: int) -> float:
    total = splat_f32(as_f32(0.0))
    for place in range(count // LANES):
        value = load_f32(source + 64 * place)
        total = fma(value, value, total)
    result = sum_lanes(total)
    for place in range(count // LANES * LANES, count):
        element = get_f32(source + 4 * place)
        result = as_f32(result + as_f32(element * element))
    return result


@njit(**_INLINE)
def store_halves(source: int, count: int, width: int, target: int) -> None:
    """`count` floats as halves, saturated, and zeros up to `width`."""
    largest = as_f32(F16_MAX)
    whole = count // LANES
    for place in range(whole):
        store_f16(target + 32 * place, clamp(load_f32(source + 64 * place), -largest, largest))
    for place in range(whole * LANES, count):
        put_f16(target + 2 * place, min(max(get_f32(source + 4 * place), -largest), largest))
    for place in range(count, width):
        put_f16(target + 2 * place, as_f32(0.0))


@njit(**_INLINE)
def _turn_query(op: int, row: int, head: int, cosines: int, sines: int, scratch: int) -> None:
    nope, rope = shared(op, NOPE), shared(op, ROPE)
    query = field(op, QUERIES) + row * field(op, QUERY_STRIDE) + 4 * (nope + rope) * head
    rotate_in_place(query + 4 * nope, rope // 2, cosines, sines, shared(op, INTERLEAVED))
    scale_row(query, nope + rope, 0, get_f32(shared(op, SCALE)))
    if row < get_i64(field(op, STATE) + 8 * STATE_ABSORBED_TILES):
        hand_over(op, query, nope, row * shared(op, HEADS) + head, scratch)


@njit(**_INLINE)
def hand_over(op: int, source: int, count: int, number: int, scratch: int) -> None:
    """`count` floats to row `number` of the floats or codes that the next product reads.

    scratch: of this thread, floats in whole groups of codes.
    """
    if field(op, FLOATS) != 0:
        copy_bytes(field(op, FLOATS) + number * field(op, FLOATS_STRIDE), source, 4 * count)
        return
    group, groups = field(op, GROUP), field(op, GROUPS)
    if count < group * groups:
        copy_bytes(scratch, source, 4 * count)
        for place in range(count, group * groups):
            put_f32(scratch + 4 * place, as_f32(0.0))
        source = scratch
    codes = field(op, CODES) + number * field(op, CODES_STRIDE)
    factors = field(op, FACTORS) + number * field(op, GROUP_STRIDE)
    starts = field(op, STARTS) + number * field(op, GROUP_STRIDE)
    for place in range(groups):
        quantise_group(
            source + 4 * group * place, group, 0, as_f32(1.0), codes + group * place, factors + 4 * place,
            starts + 4 * place, field(op, ZERO_POINT), field(op, LOW), field(op, LOW_GROUPS),
        )  # fmt: skip


@njit(**_INLINE)
def divide_row(source: int, vectors: int, total: float, target: int) -> None:
    """target = source / total, in whole vectors, by one reciprocal."""
    factor = splat_f32(as_f32(1.0 / float(total)))
    for place in range(vectors):
        store_f32(target + 64 * place, mul(load_f32(source + 64 * place), factor))
