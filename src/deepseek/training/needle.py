"""Needle in a haystack: can the model repeat what it read once, far back?

A needle is a form of four fields: a name, one token that is always the same, and a value, one of 60 tokens of which no
other field makes use; text uses all of them rarely. It stands once at some depth of a text and again at the end: recall
is the share of its values that the model then holds for the likeliest; 1/60 is chance. To find what followed a name is
enough for it, so it measures reach and not knowledge. A model with a sliding window sees no further back than its
windows reach.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepseek.models.decoder import Model
from deepseek.progress import Report, silent
from deepseek.training.data import Batches
from deepseek.training.recipe import NeedleTable

FIELDS, VALUES = 4, 60
NEEDLE_TOKENS = 2 * FIELDS
_TOKENS_TO_A_PLACE, _MOST_PLACES = 32, 32  # in training

Tokens = NDArray[np.int64]


@torch.no_grad()
def needle_recall(
    model: Model, batches: Batches, table: NeedleTable, *, seed: int, report: Report = silent
) -> dict[str, Any]:
    """{"recall": {length: share}, "by_depth": {length: {depth: share}}}; lengths and depths as texts, for JSON."""
    was_training = model.training
    model.eval()
    by_depth: dict[str, dict[str, float]] = {}
    total = len(table.lengths) * len(table.depths) * table.trials
    done = 0
    for length in table.lengths:
        text = _haystack(batches, length * table.trials)
        shares = dict.fromkeys((f"{depth:g}" for depth in table.depths), 0.0)
        for trial in range(table.trials):
            hay = text[trial * length : (trial + 1) * length]
            for depth in table.depths:
                tokens = planted(hay, depth, batches.vocab_size, np.random.default_rng((seed, length, trial)))
                shares[f"{depth:g}"] += _recalled(model, tokens) / table.trials
                done += 1
                report("looking for needles", done, total, "texts")
        by_depth[str(length)] = shares
    model.train(was_training)
    return {"recall": {length: _mean(shares) for length, shares in by_depth.items()}, "by_depth": by_depth}


def planted(hay: Tokens, depth: float, vocab_size: int, random: np.random.Generator) -> Tokens:
    """A copy of `hay` with a needle at `depth` (0 to 1) and the same needle as its last tokens."""
    tokens, needle = hay.copy(), _needle(vocab_size, random)
    place = round(depth * (len(tokens) - 2 * NEEDLE_TOKENS))
    tokens[place : place + NEEDLE_TOKENS] = needle
    tokens[-NEEDLE_TOKENS:] = needle
    return tokens


def plant_in_batch(batch: Tokens, share: float, vocab_size: int, *, seed: int, index: int) -> Tokens:
    """Training text of the same kind: in about `share` of the rows a needle, at several places.

    One place to 32 tokens, 2 to 32 of them anywhere in the row, so that every distance is practised. A function of its
    arguments. batch: (sequences, tokens + 1).
    """
    random = np.random.default_rng((seed, index))
    batch = batch.copy()
    for row in batch:
        if random.random() < share:
            needle = _needle(vocab_size, random)
            count = min(max(2, len(row) // _TOKENS_TO_A_PLACE), _MOST_PLACES)
            for slot in random.choice(len(row) // NEEDLE_TOKENS, count, replace=False):
                row[slot * NEEDLE_TOKENS :][:NEEDLE_TOKENS] = needle
    return batch


def _needle(vocab_size: int, random: np.random.Generator) -> Tokens:
    """The first quarter of a vocabulary is left out: bytes, control tokens and the commonest pieces."""
    first = vocab_size // 4
    values = min(VALUES, (vocab_size - first) // FIELDS - 1)
    names = first + np.arange(FIELDS) * (values + 1)
    return np.stack((names, names + random.integers(1, values + 1, FIELDS)), axis=1).flatten()


def _haystack(batches: Batches, tokens: int) -> Tokens:
    """Held-out text of all sources one after the other, repeated if there is too little."""
    parts, have = [], 0
    for source in batches.sources:
        for batch in batches.held_out(source):
            parts.append(batch[:, :-1].flatten())
            have += parts[-1].size
            if have >= tokens:
                return np.concatenate(parts)[:tokens]
    return np.resize(np.concatenate(parts), tokens)


def _recalled(model: Model, tokens: Tokens) -> float:
    ids = torch.from_numpy(tokens).to(model.device)
    likeliest = model(ids[None, :-1], keep_logits=NEEDLE_TOKENS).logits[0].argmax(dim=-1)
    return float((likeliest == ids[-NEEDLE_TOKENS:])[1::2].float().mean())


def _mean(shares: Mapping[str, float]) -> float:
    return sum(shares.values()) / len(shares)
