"""The text of one sample as its tokens come: whole characters only, and nothing of a stop string."""

from typing import Protocol

from deepseek.sampling import SamplingParams, StopScanner


class TextDecoder(Protocol):
    """`deepseek.tokenizer.stream.StreamDecoder`, or a fake of it."""

    def push(self, token_id: int) -> str: ...
    def flush(self) -> str: ...


class AnswerText:
    """Decodes tokens and looks for stop strings, which only count in what comes after `min_tokens` tokens."""

    def __init__(self, decoder: TextDecoder, params: SamplingParams) -> None:
        self._decoder = decoder
        self._scanner = StopScanner(params.stop, include=params.include_stop_str_in_output)
        self._scans = bool(params.stop)
        self._unscanned = params.min_tokens

    @property
    def stopped_by(self) -> str | None:
        """The stop string that was completed."""
        return self._scanner.found

    def push(self, token_id: int) -> str:
        """What is certain now."""
        text = self._decoder.push(token_id)
        if self._unscanned > 0:
            self._unscanned -= 1
            return text
        return self._scanner.push(text) if self._scans else text

    def finish(self) -> str:
        """The rest, when nothing more comes."""
        return self._scanner.push(self._decoder.flush()) + self._scanner.flush()
