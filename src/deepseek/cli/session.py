"""A loaded model with its tokenizer, as `chat` and `generate` use it."""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deepseek.cli.console import progress_bars
from deepseek.errors import DeepseekError, GenerationError

if TYPE_CHECKING:
    from deepseek.models.decoder import Model
    from deepseek.sampling import SamplingParams
    from deepseek.tokenizer.tokenizer import Tokenizer


@dataclass(kw_only=True)
class Answer:
    """What is known of one answer while it comes and after. seconds: from the first token's start to the last."""

    prompt_tokens: int
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str | None = None
    seconds_to_first_token: float = 0.0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Of decoding: tokens after the first over the time after the first; 0 where there is no such token."""
        decoding = self.seconds - self.seconds_to_first_token
        return (len(self.token_ids) - 1) / decoding if decoding > 0 else 0.0


class Session:
    """`stream` yields text as it comes and fills `answer`."""

    def __init__(self, model: "Model", tokenizer: "Tokenizer") -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.answer = Answer(prompt_tokens=0)

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        if self.tokenizer.chat_template is None:
            raise GenerationError("this model has no chat template; use `deepseek generate` to continue plain text")
        return self.tokenizer.encode_chat(messages)

    def stream(self, ids: list[int], params: "SamplingParams") -> Iterator[str]:
        self.answer = answer = Answer(prompt_tokens=len(ids))
        begun = time.perf_counter()
        for event in self.model.stream(ids, params=params, tokenizer=self.tokenizer):
            answer.seconds = time.perf_counter() - begun
            if not answer.token_ids:
                answer.seconds_to_first_token = answer.seconds
            answer.token_ids.append(event.token_id)
            answer.text += event.text
            answer.finish_reason = event.finish_reason
            yield event.text


def open_session(
    name: str | None, *, revision: str | None, dtype: str, device: str, allow_unknown_keys: bool
) -> Session:
    """Fetch what is missing and load it, with progress. Raises DeepseekError."""
    _require_torch()
    # Threads that spin while they wait stop each other on a busy machine, see docs/decisions/008.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from deepseek.hub import DEFAULT_MODEL, resolve
    from deepseek.models.auto import AutoModel
    from deepseek.tokenizer import AutoTokenizer

    with progress_bars() as report:
        path = resolve(name or DEFAULT_MODEL, revision=revision, report=report).path
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModel.from_pretrained(
            path, dtype=dtype, device=device, allow_unknown_keys=allow_unknown_keys, report=report
        )
    return Session(model, tokenizer)


def read_prompt(prompt: str | None) -> str | None:
    """The text of --prompt, standard input for `-` or when it is no terminal, otherwise None. Raises for nothing."""
    if prompt == "-" or (prompt is None and not sys.stdin.isatty()):
        prompt = sys.stdin.read()
    if prompt is not None and not prompt.strip():
        raise GenerationError("the prompt is empty; give one with --prompt or on standard input")
    return prompt


def _require_torch() -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise DeepseekError("this needs PyTorch: pip install 'deepseek-framework[train]'")
