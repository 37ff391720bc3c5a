"""Sparse latent attention (V3.2) in kernels against the PyTorch reference, and the choice itself."""

from dataclasses import replace

import numpy as np
import pytest

from deepseek.config import IndexerConfig
from deepseek.models.attention import LatentForm
from latent_world import F32, INT8, TINY, LatentWorld, Tokens, Weights, config_of, error, inputs

FORMS: tuple[LatentForm, ...] = ("naive", "absorbed")
MLA = replace(TINY, q_lora_rank=14)
FEW = IndexerConfig(index_n_heads=3, index_head_dim=20, index_topk=9)
MANY = IndexerConfig(index_n_heads=5, index_head_dim=32, index_topk=41)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sizes", [FEW, MANY], ids=["few", "many"])
def test_agrees_with_the_reference(sizes: IndexerConfig, form: LatentForm) -> None:
    weights = Weights(config_of(MLA, indexer=sizes), F32)
    x = inputs(weights.config, 100)
    got = LatentWorld(weights, rows=128).whole(x, 100 if form == "naive" else 0, [100])
    assert error(got, weights.expected(x, form)) < 1e-4


@pytest.mark.parametrize("form", FORMS)
def test_up_to_index_topk_tokens_it_is_dense(form: LatentForm) -> None:
    """Bit for bit, and not beyond."""
    sparse = Weights(config_of(MLA, indexer=MANY), INT8)
    dense = Weights(config_of(MLA, indexer=replace(MANY, index_topk=1000)), INT8)
    x = inputs(sparse.config, 60)
    n_prompt = 60 if form == "naive" else 0
    got, expected = (LatentWorld(weights).whole(x, n_prompt, [60]) for weights in (sparse, dense))
    assert np.array_equal(got[:41], expected[:41])
    assert not np.array_equal(got[41:], expected[41:])


@pytest.mark.parametrize("chunks", [[1] * 45, [31, 1, 5, 8], [17, 20, 8]], ids=str)
def test_chunks_and_threads_change_no_bit(chunks: list[int]) -> None:
    """Single rows are scored by all threads together, many by one each."""
    weights = Weights(config_of(MLA, indexer=FEW), INT8)
    x = inputs(weights.config, 45)
    for n_prompt in (45, 0):
        whole = LatentWorld(weights).whole(x, n_prompt, [45])
        for threads in (1, 2):
            assert np.array_equal(LatentWorld(weights, threads=threads).whole(x, n_prompt, chunks), whole)


def test_of_equal_scores_the_earlier_token_is_chosen() -> None:
    """Head weights of 0 make every score 0: attention sees the first index_topk tokens, so later ones do not matter."""
    weights = Weights(config_of(MLA, indexer=FEW), F32)
    tensor = weights.tensors["model.layers.0.self_attn.indexer.weights_proj.weight"]
    weights.data[tensor.offset : tensor.offset + tensor.nbytes] = 0
    x = inputs(weights.config, 50)
    other = x.copy()
    other[FEW.index_topk : 49] += 1
    for n_prompt in (50, 0):
        got, expected = (LatentWorld(weights).whole(rows, n_prompt, [50])[49] for rows in (other, x))
        assert np.array_equal(got, expected)
        other_first = x.copy()
        other_first[FEW.index_topk - 1] += 1
        assert not np.array_equal(LatentWorld(weights).whole(other_first, n_prompt, [50])[49], expected)


def test_sequences_of_both_forms_together() -> None:
    weights = Weights(config_of(MLA, indexer=FEW), F32)
    world = LatentWorld(weights, threads=2)
    prompt, running = (Tokens(inputs(weights.config, 45, seed), n) for seed, n in ((1, 45), (2, 20)))
    world.step((running, 0, 20))
    got, one = world.step((prompt, 0, 40), (running, 20, 1))
    assert error(got, weights.expected(prompt.x[:40], "naive")) < 1e-4
    assert error(one, weights.expected(running.x[:21], "absorbed")[20:]) < 1e-4
