"""Multi-token prediction at inference (V3, sections 2.2 and 5.4.3): the model drafts for itself and checks the drafts.

Each prediction layer drafts one token further ahead. One forward pass of the model then verifies all drafts: those
that equal its own greedy choice are kept, and its choice after them comes for free. The tokens are those of plain
greedy generation, up to ties within rounding: a pass over several tokens adds in another order than one over one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from deepseek.errors import GenerationError
from deepseek.models.cache import KVCache
from deepseek.models.decoder import Model, PredictionLayer
from deepseek.models.visibility import visibility


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeculativeResult:
    """token_ids: what was generated, an end token included. steps: forward passes of the model, the prompt's too.

    drafted, accepted: drafts verified and drafts kept, by prediction layer.
    """

    token_ids: list[int]
    steps: int
    drafted: list[int]
    accepted: list[int]


@torch.no_grad()
def generate_speculative(
    model: Model, prompt_ids: list[int], *, max_tokens: int, ignore_eos: bool = False
) -> SpeculativeResult:
    """Greedy generation of one sequence with drafts from the prediction layers, fewer tokens if the context is full.

    Raises GenerationError when the model has no such layers, or for a prompt that is empty or too long.
    """
    depth = len(model.prediction_layers)
    if depth == 0:
        raise GenerationError("this model has no MTP layers (num_nextn_predict_layers is 0): use generate")
    limit = min(max_tokens, model.room_after(prompt_ids))
    ends = () if ignore_eos else model.config.eos_token_ids
    cache = model.new_cache(len(prompt_ids) + limit + depth)
    drafter = _Drafter(model, cache)
    drafted, accepted, steps = [0] * depth, [0] * depth, 0
    generated, drafts, unread = list[int](), list[int](), list(prompt_ids)
    while len(generated) < limit:
        past = cache.length
        output = model(
            torch.tensor([unread + drafts], device=model.device),
            cache=cache,
            keep_logits=len(drafts) + 1,
            latent_form="absorbed" if past else "auto",  # as plain generation: the form belongs to the token
        )
        steps += 1
        choices = output.logits[0].argmax(dim=-1).tolist()
        kept = next((place for place, draft in enumerate(drafts) if draft != choices[place]), len(drafts))
        for place in range(len(drafts)):
            drafted[place] += 1
            accepted[place] += place < kept
        fresh = choices[: kept + 1]
        generated += fresh
        if end := [place for place, token in enumerate(generated) if token in ends]:
            generated = generated[: end[0] + 1]
            break
        read = len(unread) + kept
        cache.truncate(past + read)
        unread = fresh[-1:]
        drafts = drafter.draft(prompt_ids + generated, output.last_hidden_btm[:, :read])
        drafts = drafts[: max(0, limit - len(generated) - 1)]
    return SpeculativeResult(token_ids=generated, steps=steps, drafted=drafted, accepted=accepted)


class _Drafter:
    """Runs the prediction layers over what is certain and one token beyond.

    Entry i of layer k (from 0) reads token i + k + 1 and predicts token i + k + 2. The last entries of deeper layers
    have read drafts, so they are forgotten and run again once the tokens are certain.
    """

    def __init__(self, model: Model, cache: KVCache) -> None:
        self.model = model
        self.cache = cache
        self._start = 0  # entries before this one have read certain tokens only
        self._hidden_btm: Tensor | None = None  # the model's states from _start on

    def draft(self, tokens: list[int], new_hidden_btm: Tensor) -> list[int]:
        """One draft from each layer to follow `tokens`; new_hidden are the states of the tokens read since."""
        model, start = self.model, self._start
        layers = model.prediction_layers
        known = new_hidden_btm if self._hidden_btm is None else torch.cat((self._hidden_btm, new_hidden_btm), dim=1)
        ids, hidden_btm, drafts = tokens[start + 1 :], known, list[int]()
        for depth, layer in enumerate(layers, start=model.config.num_hidden_layers):
            assert isinstance(layer, PredictionLayer)
            self.cache.truncate_layer(depth, start)
            hidden_btm = predict_layer(model, depth, hidden_btm, torch.tensor([ids], device=model.device), self.cache)
            drafts.append(int(model.head(hidden_btm[:, -1]).argmax()))
            ids = [*ids[1:], drafts[-1]]
        self._start = max(0, len(tokens) - len(layers))
        self._hidden_btm = known[:, self._start - start :]
        return drafts


def predict_layer(
    model: Model, layer: int, hidden_btm: Tensor, next_ids_bt: Tensor, cache: KVCache | None = None
) -> Tensor:
    """Run prediction layer `layer` (counted from num_hidden_layers); the result goes to `model.head`.

    hidden: the model's last_hidden_btm, or the result of the layer before. next_ids: the token after each.
    """
    module = model.model.layers[layer]
    assert isinstance(module, PredictionLayer)
    past, queries = 0 if cache is None else cache.length_of(layer), next_ids_bt.shape[1]
    positions_bt = torch.arange(past, past + queries, device=next_ids_bt.device)[None]
    window = model.config.window_of(layer)
    seen = visibility(None, queries=queries, past=past, window=window, device=next_ids_bt.device)
    layer_cache = None if cache is None else cache.layers[layer]
    embedding_btm = model.model.embed_tokens(next_ids_bt)
    inputs = model.attention_inputs(positions_bt)
    return model.run_layer(layer, module.predict, hidden_btm, embedding_btm, inputs, seen, layer_cache)
