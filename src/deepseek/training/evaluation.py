"""Held-out loss by source, and samples of text, during a run. Neither changes what training does afterwards."""

import itertools
from collections.abc import Iterable

import torch

from deepseek.models.decoder import Model
from deepseek.tokenizer.tokenizer import Tokenizer
from deepseek.training.data import Batches
from deepseek.training.loss import language_model_loss


@torch.no_grad()
def held_out_losses(model: Model, batches: Batches, *, count: int, micro_batch_size: int) -> dict[str, float]:
    """Nats a token over the first `count` batches of each source's held-out text; sources without any are left out."""
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
