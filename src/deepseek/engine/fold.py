"""Events summed up: a whole answer is a fold over its stream."""

from itertools import zip_longest

from deepseek.engine.outputs import FinishReason, Generation, Sample, TokenEvent, TokenLogprobs
from deepseek.engine.sample_routing import routing_of
from deepseek.engine.sequence import Request


class _SampleFold:
    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.texts: list[str] = []
        self.logprobs: list[TokenLogprobs] = []
        self.finish_reason: FinishReason = "length"


class GenerationFold:
    """Sums the events of one request."""

    def __init__(self, request: Request, *, has_text: bool) -> None:
        self._request = request
        self._has_text = has_text
        self._samples = [_SampleFold() for _ in range(request.params.n)]
        self._open: int = request.params.n

    def add(self, event: TokenEvent | Exception) -> bool:
        """Whether this was the request's last event. Raises what ended the request."""
        if isinstance(event, Exception):
            raise event
        sample = self._samples[event.sample]
        if event.token_id is not None:
            sample.token_ids.append(event.token_id)
            if event.logprob is not None:
                sample.logprobs.append((event.logprob, event.top_logprobs))
        sample.texts.append(event.text)
        if event.finish_reason is None:
            return False
        sample.finish_reason = event.finish_reason
        self._open -= 1
        return self._open == 0

    def result(self) -> Generation:
        params = self._request.params
        return Generation(
            samples=[
                Sample(
                    token_ids=sample.token_ids,
                    text="".join(sample.texts) if self._has_text else None,
                    finish_reason=sample.finish_reason,
                    logprobs=None if params.logprobs is None else sample.logprobs,
                    routing=routing_of(sequence) if sequence else None,
                )
                for sample, sequence in zip_longest(self._samples, self._request.sequences)
            ],
            prompt_tokens=len(self._request.prompt_ids),
            prompt_logprobs=None if params.prompt_logprobs is None else self._request.prompt_logprobs,
            metrics=self._request.metrics,
        )
