"""Our engine as a side, through its public interface: what is measured is what a caller gets."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepseek.errors import DeepseekError
from deepseek.profiler.work import Timing, Work, prompt_ids
from deepseek.progress import Report, silent

if TYPE_CHECKING:
    from deepseek.engine.outputs import Generation

_LEAST_SECONDS = 1.0


class EngineSide:
    """Implements `work.Side`. Speculation and the prefix cache are off: the other side has neither.

    settings: fields of EngineConfig by name.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None,
        settings: dict[str, Any] | None = None,
        report: Report = silent,
    ) -> None:
        from deepseek.engine.engine import Engine

        self._settings = {"speculation": "off", "enable_prefix_caching": False, "threads": threads, **(settings or {})}
        self._engine = Engine.from_pretrained(str(path), report=report, **self._settings)
        self._vocab_size = self._engine.model_config.vocab_size

    def tune(self, work: Work) -> dict[str, Any]:
        """Nothing to choose: the engine runs as it comes. One run warms it up."""
        self.run(work)
        return {}

    def run(self, work: Work) -> Timing:
        if work.kind == "prompt":
            begun = time.perf_counter()
            self._generate([prompt_ids(work.context, self._vocab_size)], 1)
            return Timing(seconds=time.perf_counter() - begun, tokens=work.context)
        return self._decode(work) if work.kind == "decode" else self._together(work)

    def losses(self, window: list[int]) -> list[float]:
        (answer,) = self._generate([window], 1, prompt_logprobs=0)
        if answer.prompt_logprobs is None or len(answer.prompt_logprobs) != len(window) - 1:
            raise DeepseekError("the engine gave no log-probabilities for the prompt")
        return [-logprob for logprob, _ in answer.prompt_logprobs]

    def facts(self) -> dict[str, Any]:
        from deepseek import __version__

        return {"deepseek": __version__, **self._settings}

    def close(self) -> None:
        self._engine.close()

    def _decode(self, work: Work) -> Timing:
        """From the first token, which the prompt gives, to the last: `count` tokens apart."""
        ids = prompt_ids(work.context, self._vocab_size)
        seconds, tokens = 0.0, 0
        while seconds < _LEAST_SECONDS:
            stream = self._engine.stream(ids, max_tokens=work.count + 1, temperature=0.0, ignore_eos=True)
            next(stream)
            begun = time.perf_counter()
            tokens += sum(1 for _ in stream)
            seconds += time.perf_counter() - begun
        return Timing(seconds=seconds, tokens=tokens)

    def _together(self, work: Work) -> Timing:
        prompts = [prompt_ids(work.context, self._vocab_size, seed) for seed in range(work.requests)]
        begun = time.perf_counter()
        answers = self._generate(prompts, work.count)
        seconds = time.perf_counter() - begun
        last_prompt = max(answer.metrics.first_token_time for answer in answers)
        end = max(answer.metrics.finished_time for answer in answers)
        return Timing(seconds=seconds, tokens=work.tokens, decode_seconds=end - last_prompt)

    def _generate(self, prompts: list[list[int]], count: int, **fields: Any) -> "list[Generation]":
        answers = self._engine.generate(prompts, max_tokens=count, temperature=0.0, ignore_eos=True, **fields)
        assert isinstance(answers, list), "a list of prompts gives a list"
        return answers


def import_engine() -> None:
    """Everything that loading a model will import."""
    import deepseek.engine.engine
    import deepseek.engine.loading
    import deepseek.tokenizer  # noqa: F401
