"""A loaded model with its tokenizer, as `chat` and `generate` use it, in either executor."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from deepseek.cli.console import progress_bars
from deepseek.cli.streams import read_stdin
from deepseek.errors import DeepseekError, GenerationError

if TYPE_CHECKING:
    from deepseek.engine.prompts import TextTokenizer
    from deepseek.progress import Report
    from deepseek.sampling import SamplingParams


class Event(Protocol):
    """What both executors say of a token."""

    @property
    def token_id(self) -> int | None: ...
    @property
    def text(self) -> str: ...
    @property
    def finish_reason(self) -> str | None: ...


Answers = Callable[[list[int], "SamplingParams"], Iterable[Event]]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which model, and how to run it. dtype, device: of PyTorch; the rest of the engine."""

    model: str | None
    backend: str
    revision: str | None
    dtype: str
    device: str
    quantize: str
    threads: int | None
    kv_cache_dtype: str
    allow_unknown_keys: bool

    def __post_init__(self) -> None:
        """Raises DeepseekError for a setting that the backend would ignore."""
        engine = self.backend == "engine"
        if self.backend not in ("engine", "torch"):
            raise DeepseekError(f"--backend must be engine or torch, not {self.backend!r}")
        others = {"--dtype": self.dtype, "--device": self.device}
        if not engine:
            others = {"--quantize": self.quantize, "--threads": str(self.threads or "auto")}
            others["--kv-cache-dtype"] = self.kv_cache_dtype
        for name, value in others.items():
            if value != "auto":
                hint = f"leave it out, or use --backend {'torch' if engine else 'engine'}"
                raise DeepseekError(f"{name} has no effect with --backend {self.backend}: {hint}")


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
    """`stream` yields text as it comes and fills `answer`. answers: tokens of one prompt as they come."""

    def __init__(self, answers: Answers, tokenizer: "TextTokenizer") -> None:
        self.tokenizer = tokenizer
        self.answer = Answer(prompt_tokens=0)
        self._answers = answers

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        from deepseek.engine.prompts import chat_ids

        return chat_ids(messages, self.tokenizer)

    def stream(self, ids: list[int], params: "SamplingParams") -> Iterator[str]:
        self.answer = answer = Answer(prompt_tokens=len(ids))
        begun = time.perf_counter()
        for event in self._answers(ids, params):
            answer.seconds = time.perf_counter() - begun
            if not answer.token_ids:
                answer.seconds_to_first_token = answer.seconds
            if event.token_id is not None:
                answer.token_ids.append(event.token_id)
            answer.text += event.text
            answer.finish_reason = event.finish_reason
            yield event.text


def open_session(wanted: Wanted) -> Session:
    """Fetch what is missing and load it, with progress. Raises DeepseekError."""
    if wanted.backend == "torch":
        require_torch()
    with progress_bars() as report:
        return _engine_session(wanted, report) if wanted.backend == "engine" else _torch_session(wanted, report)


def _engine_session(wanted: Wanted, report: "Report") -> Session:
    from deepseek.engine.engine import Engine
    from deepseek.hub import DEFAULT_MODEL

    engine = Engine.from_pretrained(
        wanted.model or DEFAULT_MODEL,
        revision=wanted.revision,
        allow_unknown_keys=wanted.allow_unknown_keys,
        report=report,
        quantize=wanted.quantize,
        threads=wanted.threads,
        kv_cache_dtype=wanted.kv_cache_dtype,
        max_num_seqs=1,
    )
    assert engine.tokenizer is not None, "from_pretrained loads it"
    return Session(engine.stream, engine.tokenizer)


def _torch_session(wanted: Wanted, report: "Report") -> Session:
    from deepseek.hub import DEFAULT_MODEL, resolve
    from deepseek.models.auto import AutoModel
    from deepseek.tokenizer import AutoTokenizer

    path = resolve(wanted.model or DEFAULT_MODEL, revision=wanted.revision, report=report).path
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModel.from_pretrained(
        path, dtype=wanted.dtype, device=wanted.device, allow_unknown_keys=wanted.allow_unknown_keys, report=report
    )
    return Session(lambda ids, params: model.stream(ids, params=params, tokenizer=tokenizer), tokenizer)


def check_model_name(model: str | None) -> None:
    """Raises GenerationError for a text that is rather a prompt than a model."""
    if model is not None and len(model.split()) > 1 and not os.path.exists(os.path.expanduser(model)):
        raise GenerationError(f"{model!r:.100} is not a model: is that the prompt? give it with --prompt")


def read_prompt(prompt: str | None) -> str | None:
    """The text of --prompt, standard input for `-` or when it is no terminal, otherwise None.

    Raises GenerationError.
    """
    if prompt == "-" or (prompt is None and (sys.stdin is None or not sys.stdin.isatty())):
        prompt = read_stdin()
    if prompt is not None and not prompt.strip():
        raise GenerationError("the prompt is empty; give one with --prompt or on standard input")
    return prompt


def require_torch() -> None:
    """To be called before PyTorch is imported. Raises DeepseekError, which says how to install it."""
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise DeepseekError("this needs PyTorch: pip install 'deepseek-framework[train]'")
    # Threads that spin for long while they wait stop each other on a busy machine, see docs/decisions/008.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
