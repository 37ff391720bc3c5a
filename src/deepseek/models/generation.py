"""Text from a model: one token at a time over a cache. The engine does the same faster; this is what it must equal.

`generate` is a fold over `stream`. Several prompts run as one batch, padded on the left. Their sums may then differ
in the last bits from those of a prompt alone, so where two tokens are equally likely a greedy text may differ too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from deepseek.errors import GenerationError
from deepseek.models.sampler import Sampler
from deepseek.sampling import SamplingParams, StopScanner
from deepseek.sampling_fields import sampling_params

if TYPE_CHECKING:
    from deepseek.models.decoder import Model
    from deepseek.tokenizer.stream import StreamDecoder
    from deepseek.tokenizer.tokenizer import Tokenizer

FinishReason = Literal["stop", "length"]
Prompts = str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]] | Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenEvent:
    """One generated token of prompt number `index`, as it comes.

    text: what is now certain, empty without a tokenizer; never half a character nor part of a stop string.
    finish_reason: on the last event of a prompt; "stop": an end token, stop token or stop string; "length": max_tokens
    or the model's context.
    """

    index: int
    token_id: int
    text: str
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """token_ids: all generated ones, the ending one included. text: None without a tokenizer; without stop strings."""

    token_ids: list[int]
    text: str | None
    finish_reason: FinishReason
    prompt_tokens: int


def generate(
    model: "Model",
    prompts: Prompts,
    params: SamplingParams | None = None,
    *,
    tokenizer: "Tokenizer | None" = None,
    **fields: Any,
) -> Generation | list[Generation]:
    """Continue one prompt (a text, ids, a tensor of one dimension) or a list of them; lists give lists.

    params, or fields of SamplingParams by name (`max_tokens=64, temperature=0`). Texts and stop strings need the
    tokenizer. Raises GenerationError for a prompt that is empty or too long and for contradictory settings.
    """
    many = _many(prompts)
    count = 1 if not many else len(prompts)
    ids: list[list[int]] = [[] for _ in range(count)]
    texts = ["" for _ in range(count)]
    reasons: list[FinishReason] = ["length" for _ in range(count)]
    batch = _encode(model, prompts, tokenizer)
    for event in _run(model, batch, sampling_params(params, fields), tokenizer):
        ids[event.index].append(event.token_id)
        texts[event.index] += event.text
        reasons[event.index] = event.finish_reason or reasons[event.index]
    results = [
        Generation(
            token_ids=ids[index],
            text=None if tokenizer is None else texts[index],
            finish_reason=reasons[index],
            prompt_tokens=len(batch[index]),
        )
        for index in range(count)
    ]
    return results if many else results[0]


def stream(
    model: "Model",
    prompts: Prompts,
    params: SamplingParams | None = None,
    *,
    tokenizer: "Tokenizer | None" = None,
    **fields: Any,
) -> Iterator[TokenEvent]:
    """The same as they come; checks its arguments at once. Close the iterator to stop early."""
    return _run(model, _encode(model, prompts, tokenizer), sampling_params(params, fields), tokenizer)


def _many(prompts: Prompts) -> bool:
    if isinstance(prompts, Tensor):
        return prompts.dim() > 1
    if isinstance(prompts, str):
        return False
    return len(prompts) == 0 or not all(isinstance(token, int) for token in prompts)


def _encode(model: "Model", prompts: Prompts, tokenizer: "Tokenizer | None") -> list[list[int]]:
    """Ids of each prompt, checked."""
    plain = prompts.tolist() if isinstance(prompts, Tensor) else prompts
    batch = list(plain) if _many(prompts) else [plain]
    ids = [_ids(prompt, tokenizer) for prompt in batch]
    for prompt in ids:
        model.room_after(prompt)
    return ids


def _ids(prompt: Any, tokenizer: "Tokenizer | None") -> list[int]:
    if not isinstance(prompt, str):
        return [int(token) for token in prompt]
    if tokenizer is None:
        raise GenerationError("a prompt given as text needs tokenizer=...")
    return tokenizer.encode(prompt)


def _ends(model: "Model", tokenizer: "Tokenizer | None") -> tuple[int, ...]:
    """What ends an answer: tokens that the configuration names, and those that the tokenizer's files do."""
    return (*model.config.eos_token_ids, *(() if tokenizer is None else tokenizer.end_ids))


class _Request:
    """One prompt on its way: its ids, sampler, text so far and why it ended."""

    def __init__(self, model: "Model", index: int, prompt: list[int], params: SamplingParams, tokenizer: Any) -> None:
        self.index = index
        self.room = min(params.max_tokens, model.room_after(prompt))
        self.sampler = Sampler(params)
        self.ends = {*params.stop_token_ids, *(() if params.ignore_eos else _ends(model, tokenizer))}
        self.decoder: StreamDecoder | None = None
        if tokenizer is not None:
            self.decoder = tokenizer.stream(skip_special_tokens=params.skip_special_tokens)
        self.scanner = StopScanner(params.stop, include=params.include_stop_str_in_output)
        self.finish_reason: FinishReason | None = None

    def take(self, logits_v: Tensor) -> TokenEvent:
        token = self.sampler.choose(logits_v)
        self.room -= 1
        text = ""
        if token in self.ends:
            self.finish_reason = "stop"
        elif self.decoder is not None:
            text = self.scanner.push(self.decoder.push(token))
        if self.finish_reason is None and self.scanner.found is None and self.room == 0:
            self.finish_reason = "length"
        if self.finish_reason is not None and self.decoder is not None:
            text += self.scanner.push(self.decoder.flush()) + self.scanner.flush()
        if self.scanner.found is not None:
            self.finish_reason = "stop"
        return TokenEvent(index=self.index, token_id=token, text=text, finish_reason=self.finish_reason)


def _run(
    model: "Model", prompts: list[list[int]], params: SamplingParams, tokenizer: "Tokenizer | None"
) -> Iterator[TokenEvent]:
    if params.stop and tokenizer is None:
        raise GenerationError("stop strings need tokenizer=...; without one use stop_token_ids")
    return _steps(model, prompts, [_Request(model, i, ids, params, tokenizer) for i, ids in enumerate(prompts)])


def _steps(model: "Model", prompts: list[list[int]], requests: list[_Request]) -> Iterator[TokenEvent]:
    """Prefill, then one token for every unfinished request at a time; finished ones leave the batch."""
    if not prompts:
        return
    input_ids, mask = _left_padded(prompts, model.device)
    cache = model.new_cache(input_ids.shape[1] + max(request.room for request in requests))
    while True:
        with torch.no_grad():
            logits_bv = model(input_ids, mask, cache=cache, keep_logits=1).logits[:, -1]
        events = [request.take(logits) for request, logits in zip(requests, logits_bv, strict=True)]
        yield from events
        open_rows = [row for row, request in enumerate(requests) if request.finish_reason is None]
        if not open_rows:
            return
        if len(open_rows) < len(requests):
            requests = [requests[row] for row in open_rows]
            events = [events[row] for row in open_rows]
            cache.keep_rows(open_rows)
            mask = None if mask is None else mask[open_rows]
        input_ids = torch.tensor([[event.token_id] for event in events], device=model.device)
        mask = None if mask is None else torch.cat((mask, mask.new_ones(len(events), 1)), dim=1)


def _left_padded(prompts: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """ids (b, t) and the mask of real tokens, None when nothing is padded. Padding is id 0, which is never seen."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    if all(len(prompt) == longest for prompt in prompts):
        return ids, None
    sizes = torch.tensor([len(prompt) for prompt in prompts], device=device)
    return ids, torch.arange(longest, device=device)[None] >= longest - sizes[:, None]
