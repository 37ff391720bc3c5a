"""Tokens as clients see them: their text, their bytes, their log-probabilities and their experts."""

import codecs
from collections.abc import Container, Sequence
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

    def name(self, token: int) -> str:
        """Its text; of bytes that are no whole character `bytes:\\xe2\\x82`, as OpenAI's legacy answers name them."""
        text, data = self.view(token)
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data) if "\ufffd" in text else text

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

    def top_by_name(self, token: int, logprob: float, top: list[tuple[int, float]]) -> dict[str, float]:
        """The likeliest by their name, the token itself among them; of two that look alike the likelier."""
        found: dict[str, float] = {}
        for other, value in [*top, (token, logprob)]:
            found.setdefault(self.name(other), finite(value))
        return found


class TokenIdViews(TokenViews):
    """Names each token by its id, as vLLM's return_tokens_as_token_ids does: `token_id:42`."""

    def view(self, token: int) -> tuple[str, list[int]]:
        return f"token_id:{token}", super().view(token)[1]


class LegacyLogprobs:
    """Builds the logprobs of `/v1/completions`, token after token.

    text_offset is a place in the answer's text: characters, not tokens' names. Tokens that write one character together
    are all at its place.
    """

    def __init__(self, tokenizer: "Tokenizer", views: TokenViews, unprinted: Container[int]) -> None:
        """unprinted: generated tokens that the answer's text is without."""
        self._tokenizer = tokenizer
        self._views = views
        self._unprinted = unprinted
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def add_prompt(
        self, told: out.CompletionLogprobs, ids: Sequence[int], logprobs: "list[TokenLogprobs]", n_added: int
    ) -> None:
        """logprobs: for tokens from the second on. n_added: so many in front are not part of the echoed text."""
        text = self._tokenizer.stream()
        scored = [(None, None), *((value, self._views.top_by_name(token, value, top))
                                  for token, (value, top) in zip(ids[1:], logprobs, strict=True))]  # fmt: skip
        for place, (token, (logprob, top)) in enumerate(zip(ids, scored, strict=True)):
            self._add(told, token, logprob, top)
            self._offset += len(text.push(token)) if place >= n_added else 0

    def add(self, told: out.CompletionLogprobs, scored: "Sequence[Scored]") -> None:
        for token, logprob, top in scored:
            self._add(told, token, logprob, self._views.top_by_name(token, logprob, top))
            if token not in self._unprinted:
                self._offset += len(self._characters.decode(self._tokenizer.token_bytes(token)))

    def _add(
        self, told: out.CompletionLogprobs, token: int, logprob: float | None, top: dict[str, float] | None
    ) -> None:
        told.tokens.append(self._views.name(token))
        told.token_logprobs.append(None if logprob is None else finite(logprob))
        told.top_logprobs.append(top)
        told.text_offset.append(self._offset)


def finite(logprob: float) -> float:
    return logprob if logprob > LEAST_LOGPROB else LEAST_LOGPROB


def experts_of(routing: "SampleRouting", count: int | None = None) -> list[out.TokenExperts]:
    """For each token, for each layer with experts: [ids, best first], [weights]. count: of the first so many."""
    weights = np.round(routing.weights[:count].astype(np.float64), 5).tolist()
    return [
        [[ids, values] for ids, values in zip(layer_ids, layer_weights, strict=True)]
        for layer_ids, layer_weights in zip(routing.experts[:count].tolist(), weights, strict=True)
    ]
