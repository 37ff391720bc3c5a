"""What a request gives back: events as tokens come, and their sum."""

from dataclasses import dataclass, field
from typing import Literal

from deepseek.engine.sample_routing import SampleRouting

FinishReason = Literal["stop", "length", "abort"]
TokenLogprobs = tuple[float, list[tuple[int, float]]]
"""A token's log-probability, and the likeliest tokens at its place with theirs."""


@dataclass(slots=True)
class RequestMetrics:
    """Times are `time.monotonic()`, 0.0 until known. prompt_tokens: of the prompt; cached_tokens: those of them whose
    KV was found in the prefix cache when the request was first admitted. preemptions: how often a sample lost its
    blocks. drafted_tokens, accepted_tokens: speculation.
    """

    prompt_tokens: int
    cached_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    arrival_time: float = 0.0
    first_scheduled_time: float = 0.0
    first_token_time: float = 0.0
    finished_time: float = 0.0


@dataclass(slots=True)
class TokenEvent:
    """One generated token of sample `sample` of prompt number `index`, as it comes.

    text: what is now certain, empty without a tokenizer; never half a character nor part of a stop string.
    finish_reason: on the last event of a sample; "stop": an end token, stop token or stop string; "length": max_tokens
    or max_model_len; "abort": cancelled. token_id is None where the event carries no new token: aborts, embeddings.
    logprob, top_logprobs: None and empty unless asked for. stopped_by: the stop string that ended the sample.
    """

    index: int
    sample: int
    token_id: int | None
    text: str
    finish_reason: FinishReason | None = None
    logprob: float | None = None
    top_logprobs: list[tuple[int, float]] = field(default_factory=list)
    stopped_by: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """token_ids: all generated ones, the ending one included. text: None without a tokenizer; without stop strings.

    logprobs: one a token, routing: which experts prompt and answer used; None unless asked for.
    """

    token_ids: list[int]
    text: str | None
    finish_reason: FinishReason
    logprobs: list[TokenLogprobs] | None = None
    routing: SampleRouting | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """The answer to one prompt: `n` samples, of which the properties name the first.

    prompt_logprobs: for prompt tokens from the second on, None unless asked for.
    """

    samples: list[Sample]
    prompt_tokens: int
    metrics: RequestMetrics
    prompt_logprobs: list[TokenLogprobs] | None = None

    @property
    def token_ids(self) -> list[int]:
        return self.samples[0].token_ids

    @property
    def text(self) -> str | None:
        return self.samples[0].text

    @property
    def finish_reason(self) -> FinishReason:
        return self.samples[0].finish_reason

    @property
    def logprobs(self) -> list[TokenLogprobs] | None:
        return self.samples[0].logprobs
