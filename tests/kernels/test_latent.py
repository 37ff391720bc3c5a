"""Latent attention in kernels against the PyTorch reference, and the arithmetic contract."""

from dataclasses import replace

import numpy as np
import pytest

from deepseek.config import IndexerConfig, MlaConfig
from deepseek.models.attention import LatentForm
from deepseek.packing import Packing
from latent_world import F32, INT8, TINY, V2_LITE, YARN, LatentWorld, Tokens, Weights, config_of, error, inputs

FORMS: tuple[LatentForm, ...] = ("naive", "absorbed")
ODD = MlaConfig(kv_lora_rank=100, q_lora_rank=20, qk_nope_head_dim=70, qk_rope_head_dim=6, v_head_dim=33)
SIZES = {
    "tiny": config_of(),
    "odd": config_of(ODD, hidden=50, heads=5),
    "half-split": config_of(replace(TINY, q_lora_rank=14), rope=replace(YARN, interleaved=False), bias=False),
    "one-head": config_of(replace(TINY, v_head_dim=32), heads=1),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SIZES)
def test_float_weights_agree_with_the_reference(name: str, form: LatentForm) -> None:
    weights = Weights(SIZES[name], F32)
    x = inputs(weights.config, 70)
    n_prompt = 70 if form == "naive" else 0
    got = LatentWorld(weights, rows=80).whole(x, n_prompt, [70])
    assert error(got, weights.expected(x, form)) < 1e-4


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("packing", "allowed"),
    [(INT8, 0.03), (Packing("int8", 64), 0.03), (Packing("int8", 128), 0.03), (Packing("bf16"), 1e-4)],
    ids=lambda value: value.name if isinstance(value, Packing) else "",
)
def test_other_packings_agree_within_the_error_of_their_activations(
    packing: Packing, allowed: float, form: LatentForm
) -> None:
    weights = Weights(SIZES["odd"], packing)
    x = inputs(weights.config, 40)
    got = LatentWorld(weights, rows=80).whole(x, 40 if form == "naive" else 0, [40])
    assert error(got, weights.expected(x, form)) < allowed


@pytest.mark.parametrize("form", FORMS)
def test_activations_of_16_bits_are_nearly_exact(form: LatentForm) -> None:
    weights = Weights(SIZES["odd"], INT8)
    x = inputs(weights.config, 40)
    got = LatentWorld(weights, rows=80, wide=True).whole(x, 40 if form == "naive" else 0, [40])
    assert error(got, weights.expected(x, form)) < 5e-4


def test_a_sequence_of_both_forms_agrees_with_the_reference() -> None:
    weights = Weights(SIZES["odd"], F32)
    x = inputs(weights.config, 50)
    got = LatentWorld(weights).whole(x, 37, [37, *[1] * 13])
    assert error(got[:37], weights.expected(x, "naive")[:37]) < 1e-4
    assert error(got[37:], weights.expected(x, "absorbed")[37:]) < 1e-4


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sparse", [False, True])
def test_a_cache_of_bytes_agrees_with_the_reference(sparse: bool, form: LatentForm) -> None:
    sizes = replace(TINY, kv_lora_rank=128, q_lora_rank=14)
    indexer = IndexerConfig(index_n_heads=3, index_head_dim=20, index_topk=70) if sparse else None
    weights = Weights(config_of(sizes, indexer=indexer), F32)
    x = inputs(weights.config, 70)
    got = LatentWorld(weights, rows=80, code_bytes=1).whole(x, 70 if form == "naive" else 0, [70])
    assert error(got, weights.expected(x, form, code_bytes=1)) < 2e-3  # where a number falls on another code


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SIZES)
def test_a_cache_of_bytes_of_any_size_is_close(name: str, form: LatentForm) -> None:
    weights = Weights(SIZES[name], F32)
    x = inputs(weights.config, 70)
    got = LatentWorld(weights, rows=80, code_bytes=1).whole(x, 70 if form == "naive" else 0, [70])
    assert 1e-4 < error(got, weights.expected(x, form)) < 0.02


@pytest.mark.parametrize("code_bytes", [1, 2])
@pytest.mark.parametrize("packing", [INT8, F32], ids=lambda packing: packing.name)
@pytest.mark.parametrize("chunks", [[1] * 75, [31, 1, 33, 10], [5, 64, 1, 5], [48, 27]], ids=str)
def test_chunks_change_no_bit(packing: Packing, chunks: list[int], code_bytes: int) -> None:
    weights = Weights(SIZES["odd"], packing)
    x = inputs(weights.config, 75)
    world = LatentWorld(weights, rows=128, code_bytes=code_bytes)
    for n_prompt in (75, 0):
        assert np.array_equal(world.whole(x, n_prompt, chunks), world.whole(x, n_prompt, [75]))


@pytest.mark.parametrize(("packing", "code_bytes"), [(INT8, 2), (F32, 2), (INT8, 1)])
def test_a_batch_and_threads_change_no_bit(packing: Packing, code_bytes: int) -> None:
    """16 sequences, some of them reading prompts in chunks while others generate, against each alone."""
    weights = Weights(SIZES["odd"], packing)
    lengths = [1 + 5 * n for n in range(16)]
    xs = [inputs(weights.config, length + 6, seed) for seed, length in enumerate(lengths)]
    alone_world = LatentWorld(weights, rows=128, code_bytes=code_bytes)
    alone = [alone_world.whole(x, length, [length, *[1] * 6]) for x, length in zip(xs, lengths, strict=True)]
    for threads in (1, 2):
        together = run_together(LatentWorld(weights, rows=128, threads=threads, code_bytes=code_bytes), xs, lengths)
        for got, expected in zip(together, alone, strict=True):
            assert np.array_equal(got, expected)


def run_together(world: LatentWorld, xs: list[np.ndarray], lengths: list[int]) -> list[np.ndarray]:
    """Prompts in chunks of at most 23 tokens, as many a step as there is room for; then a token each."""
    sequences = [Tokens(x, length) for x, length in zip(xs, lengths, strict=True)]
    done = [0] * len(xs)
    outputs: list[list[np.ndarray]] = [[] for _ in xs]
    while any(at < len(x) for at, x in zip(done, xs, strict=True)):
        parts, numbers, room = [], [], 128
        for number, sequence in enumerate(sequences):
            left = lengths[number] - done[number]
            count = min(23, left) if left > 0 else min(1, len(xs[number]) - done[number])
            if 0 < count <= room:
                parts.append((sequence, done[number], count))
                numbers.append(number)
                room -= count
        for number, part, output in zip(numbers, parts, world.step(*parts), strict=True):
            outputs[number].append(output)
            done[number] += part[2]
    return [np.concatenate(parts) for parts in outputs]


@pytest.mark.parametrize("form", FORMS)
def test_the_sizes_of_v2_lite(form: LatentForm) -> None:
    weights = Weights(config_of(V2_LITE, hidden=128, heads=4), INT8)
    x = inputs(weights.config, 70)
    n_prompt = 70 if form == "naive" else 0
    got = LatentWorld(weights, rows=80).whole(x, n_prompt, [64, 6])
    assert error(got, weights.expected(x, form)) < 0.03
    assert np.array_equal(got, LatentWorld(weights, rows=80, threads=2).whole(x, n_prompt, [70]))
