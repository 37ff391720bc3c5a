"""Held-out loss by source, and samples of text, during a run. Neither changes what training does afterwards."""

import itertools
from collections.abc import Iterable, Sequence

import torch

from deepseek.models.decoder import Model
from deepseek.tokenizer.tokenizer import Tokenizer
from deepseek.training.data import Batches
from deepseek.training.loss import language_model_loss


@torch.no_grad()
def held_out_losses(model: Model, batches: Batches, *, count: int | None, micro_batch_size: int) -> dict[str, float]:
    """Nats per token over each source's held-out text; sources without any are left out.

    count: so many batches of each; None: all.
    """
    was_training = model.training
    model.eval()
    losses: dict[str, float] = {}
    for source in batches.sources:
        total, tokens = 0.0, 0
        for batch in itertools.islice(batches.held_out(source), count):
            for part in torch.split(torch.from_numpy(batch), micro_batch_size):
                predicted = part.shape[0] * (part.shape[1] - 1)
                total += float(language_model_loss(model, part.to(model.device)).main) * predicted
                tokens += predicted
        if tokens:
            losses[source] = total / tokens
    model.train(was_training)
    return losses


@torch.no_grad()
def text_loss(model: Model, ids: Sequence[int], *, length: int, micro_batch_size: int) -> tuple[float, int]:
    """Nats per token of a text cut into sequences of `length`, and how many tokens were predicted.

    The last sequence may be shorter: every token but the first is predicted once.
    """
    total, tokens = 0.0, 0
    starts = range(0, len(ids) - 1, length)
    whole = [ids[start : start + length + 1] for start in starts]
    rest = [whole.pop()] if whole and len(whole[-1]) < length + 1 else []
    parts = [whole[at : at + micro_batch_size] for at in range(0, len(whole), micro_batch_size)]
    for part in (*parts, *([rest] if rest else [])):
        batch = torch.tensor(part, device=model.device)
        predicted = batch.shape[0] * (batch.shape[1] - 1)
        total += float(language_model_loss(model, batch).main) * predicted
        tokens += predicted
    return (total / tokens if tokens else 0.0), tokens


@torch.no_grad()
def samples(
    model: Model, tokenizer: Tokenizer, prompts: Iterable[str], *, tokens: int, temperature: float, seed: int
) -> list[tuple[str, str]]:
    """Each prompt with its continuation; the same seed gives the same text."""
    was_training = model.training
    model.eval()
    written = []
    for prompt in prompts:
        result = model.generate(prompt, tokenizer=tokenizer, max_tokens=tokens, temperature=temperature, seed=seed)
        assert not isinstance(result, list)
        written.append((prompt, result.text or ""))
    model.train(was_training)
    return written
