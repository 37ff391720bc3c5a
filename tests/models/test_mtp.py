"""Prediction layers equal Transformers', and drafting with them changes no token."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import MtpCache
from transformers.modeling_layers import MtpModel

from deepseek.errors import GenerationError
from deepseek.models.decoder import Model
from deepseek.models.mtp import _Drafter, generate_speculative, predict_layer
from model_cases import CASES
from model_reference import paired, randomise, relative_difference

DEPTH = 2
CONFIG = replace(CASES["v3"], num_nextn_predict_layers=DEPTH)


def paired_with_prediction(seed: int) -> tuple[Model, object, MtpModel]:
    """Ours and Transformers' pair of models: the main one and the one of the prediction layers."""
    _, reference = paired(replace(CONFIG, num_nextn_predict_layers=0), seed)
    reference.config.num_mtp_layers = DEPTH
    predictor = MtpModel(reference, DEPTH).eval()
    randomise(predictor.layers, seed + 1)
    ours = Model(CONFIG).eval()
    weights = reference.state_dict()
    for name, weight in predictor.layers.state_dict().items():
        layer, _, rest = name.partition(".")
        rest = rest.removeprefix("mtp_block.").replace("post_norm", "shared_head.norm")
        weights[f"model.layers.{CONFIG.num_hidden_layers + int(layer)}.{rest}"] = weight
    ours.load_state_dict(weights)
    return ours, reference, predictor


@torch.no_grad()
def test_prediction_layers_equal_transformers() -> None:
    ours, reference, predictor = paired_with_prediction(0)
    ids = torch.randint(0, 67, (1, 12))
    hidden = ours(ids).last_hidden_btm
    expected = reference.model(ids).last_hidden_state
    cache, ours_cache = MtpCache(config=reference.config.get_mtp_config()), ours.new_cache()
    for depth in range(DEPTH):
        next_ids = ids[:, depth + 1 :]
        hidden, expected = (state[:, : next_ids.shape[1]] for state in (hidden, expected))
        positions = torch.arange(depth + 1, ids.shape[1])[None]
        expected = predictor.forward_layer(depth, expected, positions, cache, input_ids=next_ids)
        split = 5
        layer = CONFIG.num_hidden_layers + depth
        parts = [slice(0, split), slice(split, None)]
        hidden = torch.cat(
            [predict_layer(ours, layer, hidden[:, part], next_ids[:, part], ours_cache) for part in parts], dim=1
        )
        assert relative_difference(ours.head(hidden), reference.lm_head(expected)) <= 1e-4


def greedy(model: Model, prompt: list[int], count: int) -> list[int]:
    return model.generate(prompt, max_tokens=count, temperature=0, ignore_eos=True).token_ids


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("name", ["v3", "v32"])
def test_speculative_text_is_the_greedy_text(depth: int, name: str) -> None:
    for seed in range(4):
        model = Model(replace(CASES[name], num_nextn_predict_layers=depth)).eval()
        randomise(model, seed)
        prompt = torch.randint(0, 67, (3 + seed,), generator=torch.Generator().manual_seed(seed)).tolist()
        result = generate_speculative(model, prompt, max_tokens=40, ignore_eos=True)
        assert result.token_ids == greedy(model, prompt, 40)
        assert all(0 <= kept <= tried for kept, tried in zip(result.accepted, result.drafted, strict=True))
        assert result.steps + sum(result.accepted) >= 40


@torch.no_grad()
def drafts_from_nothing(model: Model, tokens: list[int]) -> list[int]:
    """Every prediction layer over the whole text, without a cache."""
    ids, drafts = list(tokens), []
    hidden = model(torch.tensor([tokens[:-1]])).last_hidden_btm
    for layer in range(CONFIG.num_hidden_layers, CONFIG.num_hidden_layers + len(model.prediction_layers)):
        ids = ids[1:]
        hidden = predict_layer(model, layer, hidden, torch.tensor([ids]))
        drafts.append(int(model.head(hidden[:, -1]).argmax()))
        ids.append(drafts[-1])
    return drafts


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_drafts_never_rest_on_tokens_that_were_rejected(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(replace(CASES["v3"], num_nextn_predict_layers=depth)).eval()
    randomise(model, 5)
    plain = _Drafter.draft
    seen: list[tuple[list[int], list[int]]] = []

    def draft(self: _Drafter, tokens: list[int], new_hidden_btm: Tensor) -> list[int]:
        seen.append((tokens, plain(self, tokens, new_hidden_btm)))
        return seen[-1][1]

    monkeypatch.setattr(_Drafter, "draft", draft)
    generate_speculative(model, [1, 2, 3, 4], max_tokens=16, ignore_eos=True)
    assert seen
    for tokens, drafts in seen:
        assert drafts == drafts_from_nothing(model, tokens)


class Oracle:
    """Drafts from a known text, wrong where told, to count acceptance."""

    def __init__(self, text: list[int], depth: int, wrong: set[int]) -> None:
        self.text, self.depth, self.wrong = text, depth, wrong

    def draft(self, tokens: list[int], new_hidden_btm: Tensor) -> list[int]:
        places = range(len(tokens), len(tokens) + self.depth)
        return [(self.text[place] + (place in self.wrong)) % 67 for place in places if place < len(self.text)]


def test_good_drafts_save_passes_and_bad_ones_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(CONFIG).eval()
    randomise(model, 3)
    prompt = [1, 2, 3]
    text = prompt + greedy(model, prompt, 31)
    for wrong, steps, accepted in [(set(), 11, [10, 10]), (set(range(99)), 31, [0, 0]), ({5, 6}, 12, [10, 9])]:
        oracle = Oracle(text, DEPTH, wrong)
        monkeypatch.setattr("deepseek.models.mtp._Drafter", lambda model, cache, oracle=oracle: oracle)
        result = generate_speculative(model, prompt, max_tokens=31, ignore_eos=True)
        assert result.token_ids == text[3:]
        assert (result.steps, result.accepted) == (steps, accepted)


def test_speculation_ends_at_an_end_token_and_at_the_limits() -> None:
    model = Model(CONFIG).eval()
    randomise(model, 1)
    prompt = [9, 8, 7]
    text = greedy(model, prompt, 30)
    model.config = replace(CONFIG, eos_token_ids=(text[6],))
    end = text.index(text[6]) + 1
    assert generate_speculative(model, prompt, max_tokens=30).token_ids == text[:end]
    for limit in (1, 2, 3, 4, 5):
        assert generate_speculative(model, prompt, max_tokens=limit, ignore_eos=True).token_ids == text[:limit]
    model.config = replace(CONFIG, max_position_embeddings=11)
    assert generate_speculative(model, prompt, max_tokens=30, ignore_eos=True).token_ids == text[:8]


def test_speculation_refuses_what_it_cannot_do() -> None:
    with pytest.raises(GenerationError, match="no MTP layers"):
        generate_speculative(Model(CASES["v3"]), [1], max_tokens=1)
    with pytest.raises(GenerationError, match="empty"):
        generate_speculative(Model(CONFIG), [], max_tokens=1)


@torch.no_grad()
def test_transformers_also_drafts_from_the_normalised_state() -> None:
    """What its candidate generator hands on is hidden_states[-1]: that must be after the final norm."""
    ours, reference, _ = paired_with_prediction(0)
    ids = torch.randint(0, 67, (1, 5))
    states = reference(ids, output_hidden_states=True, past_key_values=DynamicCache(config=reference.config))
    torch.testing.assert_close(ours(ids).last_hidden_btm, states.hidden_states[-1], rtol=1e-4, atol=1e-5)
