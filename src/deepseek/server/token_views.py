"""Tokens as clients see them: their text, their bytes, their log-probabilities and their experts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from deepseek.server.protocol import answers as out

if TYPE_CHECKING:
    from deepseek.engine.outputs import TokenLogprobs
    from deepseek.engine.sample_routing import SampleRouting
    from deepseek.tokenizer.tokenizer import Tokenizer

    Scored = tuple[int, float, list[tuple[int, float]]]

LEAST_LOGPROB = -9999.0
"""Told for what is impossible: JSON has no infinity."""


class TokenViews:
    """Looks a token up once."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, tuple[str, list[int]]] = {}

    def view(self, token: int) -> tuple[str, list[int]]:
        """Its text, with U+FFFD for bytes that are no whole character, and its bytes."""
        known = self._known.get(token)
        if known is None:
            data = self._tokenizer.token_bytes(token)
            known = self._known[token] = (data.decode("utf-8", "replace"), list(data))
        return known

    def text(self, token: int) -> str:
        return self.view(token)[0]

    def chat_logprobs(self, scored: "Sequence[Scored]", most: int) -> list[out.TokenLogprob]:
        """most: so many of the likeliest are told."""
        return [
            out.TokenLogprob(
                *self._scored(token, logprob), [out.TopLogprob(*self._scored(*other)) for other in top[:most]]
            )
            for token, logprob, top in scored
        ]

    def _scored(self, token: int, logprob: float) -> tuple[str, float, list[int]]:
        text, data = self.view(token)
        return text, finite(logprob), data

    def top_by_text(self, token: int, logprob: float, top: list[tuple[int, float]]) -> dict[str, float]:
        """The likeliest by their text, the token itself among them; of two that look alike the likelier."""
        found: dict[str, float] = {}
        for other, value in [*top, (token, logprob)]:
            found.setdefault(self.text(other), finite(value))
        return found


class LegacyLogprobs:
    """Builds the logprobs of `/v1/completions`, token after token."""

    def __init__(self, views: TokenViews) -> None:
        self._views = views
        self._offset = 0

    def add_prompt(self, told: out.CompletionLogprobs, ids: Sequence[int], logprobs: "list[TokenLogprobs]") -> None:
        """logprobs: for tokens from the second on."""
        self._add(told, ids[0], None, None)
        for token, (logprob, top) in zip(ids[1:], logprobs, strict=True):
            self._add(told, token, logprob, self._views.top_by_text(token, logprob, top))

    def add(self, told: out.CompletionLogprobs, scored: "Sequence[Scored]") -> None:
        for token, logprob, top in scored:
            self._add(told, token, logprob, self._views.top_by_text(token, logprob, top))

    def _add(
        self, told: out.CompletionLogprobs, token: int, logprob: float | None, top: dict[str, float] | None
    ) -> None:
        text = self._views.text(token)
        told.tokens.append(text)
        told.token_logprobs.append(None if logprob is None else finite(logprob))
        told.top_logprobs.append(top)
        told.text_offset.append(self._offset)
        self._offset += len(text)


def finite(logprob: float) -> float:
    return logprob if logprob > LEAST_LOGPROB else LEAST_LOGPROB


def experts_of(routing: "SampleRouting", count: int | None = None) -> list[out.TokenExperts]:
    """For each token, for each layer with experts: [ids, best first], [weights]. count: of the first so many."""
    weights = np.round(routing.weights[:count].astype(np.float64), 5).tolist()
    return [
        [[ids, values] for ids, values in zip(layer_ids, layer_weights, strict=True)]
        for layer_ids, layer_weights in zip(routing.experts[:count].tolist(), weights, strict=True)
    ]
