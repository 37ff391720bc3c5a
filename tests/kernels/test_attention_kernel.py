"""Grouped-query attention over the paged cache against its definition, and the same bits however it is cut."""

from itertools import pairwise

import numpy as np
import pytest

from deepseek.kernels.attention import PART_BLOCKS, TILE_ROWS
from deepseek.kernels.attention_store import BLOCK
from paged_attention import Cache, Sequence, Shape

PART = BLOCK * PART_BLOCKS

SHAPES = [
    Shape(heads=2, key_heads=2, size=64),
    Shape(heads=4, key_heads=2, size=8),
    Shape(heads=9, key_heads=3, size=64),
    Shape(heads=4, key_heads=1, size=12, interleaved=True),
    Shape(heads=7, key_heads=1, size=80, normed=True),
    Shape(heads=4, key_heads=2, size=128, rotated=64),
    Shape(heads=2, key_heads=1, size=256, interleaved=True, normed=True),
    Shape(heads=16, key_heads=1, size=16, rotated=0),
    Shape(heads=6, key_heads=2, size=64, window=40),
    Shape(heads=4, key_heads=2, size=12, window=1),
    Shape(heads=3, key_heads=1, size=80, window=33, interleaved=True),
    Shape(heads=9, key_heads=3, size=64, code_bytes=1),
    Shape(heads=7, key_heads=1, size=80, normed=True, code_bytes=1),
    Shape(heads=4, key_heads=2, size=12, window=40, code_bytes=1),
    Shape(heads=2, key_heads=1, size=256, code_bytes=1),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
few_shapes = pytest.mark.parametrize("shape", [SHAPES[2], SHAPES[4], SHAPES[8], SHAPES[11]], ids=str)
TABLE = [7, 2, 5, 0, 3]
TOKENS = 4 * BLOCK + 7
ROUNDING = 8e-4  # of values about 1: queries and weights are rounded to 16 bits


def whole(shape: Shape, sequence: Sequence, **options: int) -> np.ndarray:
    return Cache(shape, 8).step([(sequence, 0, len(sequence.queries))], **options)[0]


@shapes
def test_equals_its_definition(shape: Shape) -> None:
    sequence = Sequence.random(np.random.default_rng(0), shape, TOKENS, TABLE)
    cache = Cache(shape, 8)
    (got,) = cache.step([(sequence, 0, TOKENS)], threads=2)
    np.testing.assert_allclose(got, cache.definition(sequence), rtol=0, atol=ROUNDING)


@shapes
def test_the_cut_of_a_prompt_changes_no_bit(shape: Shape) -> None:
    """In chunks, token by token, in tiles of any size, by any number of threads."""
    sequence = Sequence.random(np.random.default_rng(1), shape, TOKENS, TABLE)
    expected = whole(shape, sequence)
    for cuts in ([1], [BLOCK], [BLOCK + 1, 50, 3 * BLOCK, TOKENS - 1], range(100, TOKENS)):
        cache, ends = Cache(shape, 8), [*cuts, TOKENS]
        parts = [
            cache.step([(sequence, start, end - start)], threads=1 + start % 3)[0]
            for start, end in zip([0, *ends], ends, strict=False)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), expected)
    for tokens_a_tile in (1, 2, 5):
        if tokens_a_tile * shape.heads // shape.key_heads <= TILE_ROWS:
            np.testing.assert_array_equal(whole(shape, sequence, tokens_a_tile=tokens_a_tile), expected)


@few_shapes
def test_sequences_in_one_step_do_not_see_each_other(shape: Shape) -> None:
    rng = np.random.default_rng(2)
    lengths = (70, 1, BLOCK, 33)
    tables = [[5, 0, 3], [9], [2], [8, 1]]
    sequences = [Sequence.random(rng, shape, n, table) for n, table in zip(lengths, tables, strict=True)]
    alone = [Cache(shape, 10).step([(sequence, 0, n)])[0] for sequence, n in zip(sequences, lengths, strict=True)]
    cache = Cache(shape, 10)
    first = cache.step([(sequences[0], 0, 60), (sequences[2], 0, 5)], threads=2)
    chunks = [(sequences[0], 60, 10), (sequences[1], 0, 1), (sequences[2], 5, BLOCK - 5), (sequences[3], 0, 33)]
    second = cache.step(chunks, threads=3)
    np.testing.assert_array_equal(np.concatenate([first[0], second[0]]), alone[0])
    np.testing.assert_array_equal(second[1], alone[1])
    np.testing.assert_array_equal(np.concatenate([first[1], second[2]]), alone[2])
    np.testing.assert_array_equal(second[3], alone[3])


@few_shapes
def test_a_shared_prefix_is_read_from_its_blocks(shape: Shape) -> None:
    rng = np.random.default_rng(3)
    first, second = (Sequence.random(rng, shape, 50, table) for table in ([4, 1], [4, 6]))
    for name in ("queries", "keys", "values"):
        getattr(second, name)[:BLOCK] = getattr(first, name)[:BLOCK]
    cache = Cache(shape, 8)
    cache.step([(first, 0, 50)])
    (got,) = cache.step([(second, BLOCK, 50 - BLOCK)])
    np.testing.assert_array_equal(got, Cache(shape, 8).step([(second, 0, 50)])[0][BLOCK:])


LONG = [
    Shape(heads=9, key_heads=3, size=64),
    Shape(heads=7, key_heads=1, size=80, normed=True),
    Shape(heads=4, key_heads=2, size=12, window=1),
    Shape(heads=6, key_heads=2, size=64, window=PART + 9),
    Shape(heads=6, key_heads=2, size=64, window=PART + 9, code_bytes=1),
]


@pytest.mark.parametrize("shape", LONG, ids=str)
def test_parts_of_the_keys_give_the_bits_of_the_whole(shape: Shape) -> None:
    """Single tokens in parts, chunks whose tiles lie across the end of a part: all as in one go, which is right."""
    rng, tokens = np.random.default_rng(7), 2 * PART + 70
    sequences = [Sequence.random(rng, shape, tokens, list(rng.permutation(40)[:20])) for _ in range(2)]
    for sequence in sequences:
        cache = Cache(shape, 40)
        (expected,) = cache.step([(sequence, 0, tokens)], threads=2)
        np.testing.assert_allclose(expected, cache.definition(sequence), rtol=0, atol=ROUNDING)
        other = Cache(shape, 40)
        for start, end in pairwise([0, PART - 3, PART + 5, 2 * PART - 1, tokens]):
            (got,) = other.step([(sequence, start, end - start)], tokens_a_tile=2)
            np.testing.assert_array_equal(got, expected[start:end])
        for position in (0, 31, PART - 1, PART, 2 * PART - 1, 2 * PART, tokens - 1):
            for threads in (1, 3):
                for in_parts in (False, True):
                    (got,) = cache.step([(sequence, position, 1)], threads=threads, in_parts=in_parts)
                    np.testing.assert_array_equal(got[0], expected[position])


def test_sequences_of_different_lengths_in_parts() -> None:
    shape = LONG[0]
    rng = np.random.default_rng(8)
    tables = [[5, 0, 3, 9, 1, 2, 7, 8, 12, 10], [4], [11, 6]]
    lengths = (300, 20, 40)
    sequences = [Sequence.random(rng, shape, n, table) for n, table in zip(lengths, tables, strict=True)]
    cache = Cache(shape, 13)
    expected = [cache.step([(sequence, 0, n)])[0][-1] for sequence, n in zip(sequences, lengths, strict=True)]
    chunks = [(sequence, n - 1, 1) for sequence, n in zip(sequences, lengths, strict=True)]
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(np.concatenate(cache.step(chunks, threads=threads, in_parts=True)), expected)


@pytest.mark.parametrize("size", [1e-6, 1e5])
@pytest.mark.parametrize("code_bytes", [1, 2])
def test_numbers_of_any_size_are_cached(size: float, code_bytes: int) -> None:
    shape = Shape(heads=2, key_heads=1, size=64, code_bytes=code_bytes)
    sequence = Sequence.random(np.random.default_rng(4), shape, 40, [1, 0], size=size)
    cache = Cache(shape, 2)
    (got,) = cache.step([(sequence, 0, 40)])
    np.testing.assert_allclose(got / size, cache.definition(sequence) / size, rtol=0, atol=2 * ROUNDING)


def test_the_longest_codes_do_not_overflow() -> None:
    """All of a key's and of a query's size in one element or in all, all values at the limit, all weights alike."""
    for size, rotated in ((256, 0), (16, 0)):
        shape = Shape(heads=1, key_heads=1, size=size, rotated=rotated)
        for spread in (False, True):
            sequence = Sequence.random(np.random.default_rng(9), shape, PART, list(range(PART_BLOCKS)))
            sequence.queries[...] = sequence.keys[...] = 1.0 if spread else 0.0
            sequence.queries[:, 0] = sequence.keys[:, 0] = 1.0
            sequence.values[...] = 3.0
            (got,) = Cache(shape, PART_BLOCKS).step([(sequence, 0, PART)])
            np.testing.assert_allclose(got, 3.0, rtol=1e-4)


def test_what_is_not_a_number_stays_visible() -> None:
    shape = Shape(heads=1, key_heads=1, size=64)
    sequence = Sequence.random(np.random.default_rng(10), shape, 50, [0, 1])
    sequence.values[20, 3] = np.nan
    (got,) = Cache(shape, 2).step([(sequence, 0, 50)])
    assert np.isfinite(got[:20]).all()
    assert np.isnan(got[20:]).all()


def test_scores_far_apart_take_the_largest() -> None:
    """Differences beyond what exp can hold: all of the weight goes to one key, wherever its block is."""
    shape = Shape(heads=1, key_heads=1, size=16, rotated=0)
    for winner in (0, 31, 32, 70):
        sequence = Sequence.random(np.random.default_rng(5), shape, 71, [0, 1, 2])
        sequence.queries[...], sequence.keys[...] = 100.0, -100.0
        sequence.keys[winner] = 100.0
        (got,) = Cache(shape, 3).step([(sequence, 0, 71)])
        np.testing.assert_allclose(got[-1], sequence.values[winner], rtol=0, atol=ROUNDING)


def test_equal_scores_give_the_mean() -> None:
    shape = Shape(heads=3, key_heads=1, size=64)
    sequence = Sequence.random(np.random.default_rng(6), shape, 100, [3, 0, 1, 2])
    sequence.queries[...] = 0
    (got,) = Cache(shape, 4).step([(sequence, 0, 100)])
    means = np.cumsum(sequence.values.astype(np.float64), axis=0) / np.arange(1, 101)[:, None]
    np.testing.assert_allclose(got, np.tile(means, 3), rtol=0, atol=ROUNDING)
