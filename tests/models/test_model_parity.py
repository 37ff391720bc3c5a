"""Logits equal Transformers' for every family: whole prompts, one token at a time over a cache, and padded batches."""

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from deepseek.families import config_from_hf
from deepseek.models.decoder import Model
from model_cases import CASES, INDEXER
from model_reference import decided, relative_difference

TOLERANCE = 1e-4
TOKENS = 14
PROMPT = 5  # of these, before the rest is decoded one by one
PADDING = 4

Pair = tuple[Model, PreTrainedModel, Tensor]


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest) -> Pair:
    return decided(CASES[request.param], tokens=TOKENS)


@pytest.mark.parametrize("latent_form", ["naive", "absorbed"])
@torch.no_grad()
def test_a_whole_prompt(pair: Pair, latent_form: str) -> None:
    ours, reference, ids = pair
    logits = ours(ids, latent_form=latent_form).logits
    assert logits.shape == (2, TOKENS, ours.config.vocab_size)
    assert relative_difference(logits, reference(ids).logits) <= TOLERANCE


@torch.no_grad()
def test_decoding_token_by_token(pair: Pair) -> None:
    ours, reference, ids = pair
    cache, reference_cache = ours.new_cache(), DynamicCache(config=reference.config)
    for start, end in [(0, PROMPT), *((place, place + 1) for place in range(PROMPT, TOKENS))]:
        logits = ours(ids[:, start:end], cache=cache).logits
        expected = reference(ids[:, start:end], past_key_values=reference_cache, use_cache=True).logits
        assert relative_difference(logits, expected) <= TOLERANCE
    assert cache.length == TOKENS


@torch.no_grad()
def test_a_batch_padded_on_the_left(pair: Pair) -> None:
    ours, reference, ids = pair
    padded = ids.clone()
    padded[1] = padded[1].roll(PADDING)
    mask = torch.ones_like(ids)
    mask[1, :PADDING] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache, split = ours.new_cache(), TOKENS - 3
    logits = torch.cat(
        [
            ours(padded[:, :split], mask[:, :split], cache=cache).logits,
            *(ours(padded[:, t : t + 1], mask[:, : t + 1], cache=cache).logits for t in range(split, TOKENS)),
        ],
        dim=1,
    )
    expected = reference(padded, attention_mask=mask, position_ids=positions).logits
    real = mask.bool()
    assert relative_difference(logits[real], expected[real]) <= TOLERANCE
    assert torch.isfinite(logits).all()


def test_the_config_survives_transformers(pair: Pair) -> None:
    ours, reference, _ = pair
    if ours.config.family != "deepseek":
        assert config_from_hf(reference.config.to_dict()) == ours.config


@pytest.mark.parametrize("extra", [-1, 0, 1, 7])
@torch.no_grad()
def test_sparse_attention_on_either_side_of_its_limit(extra: int) -> None:
    ours, reference, ids = decided(CASES["v32"], tokens=INDEXER.index_topk + extra)
    assert relative_difference(ours(ids).logits, reference(ids).logits) <= TOLERANCE
