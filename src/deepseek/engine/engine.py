"""The engine as callers see it: prompts in, text out, for one caller or many at once."""

import asyncio
import gc
import itertools
import os
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from deepseek.engine import prompts as given
from deepseek.engine.answer_text import AnswerText
from deepseek.engine.batch import LOGIT_ROWS, Runner
from deepseek.engine.block_pool import root_key
from deepseek.engine.core import EngineCore, EngineLoad, QueueFull
from deepseek.engine.engine_config import EngineConfig
from deepseek.engine.fold import GenerationFold
from deepseek.engine.kv_blocks import KVBlocks
from deepseek.engine.mailboxes import LoopMailbox, ThreadMailbox
from deepseek.engine.outputs import Generation
from deepseek.engine.pace import Pace
from deepseek.engine.pooling import Pooling, PoolingKind, check_pooling
from deepseek.engine.prediction import PredictionLayers
from deepseek.engine.prompts import Prompt, Prompts, RequestOptions, TextTokenizer
from deepseek.engine.scheduler import Scheduler
from deepseek.engine.sequence import Request, TokenSampler
from deepseek.engine.speculation import Drafter, PromptLookup, Speculator
from deepseek.engine.streams import AsyncTokenStream, TokenStream
from deepseek.errors import ConfigError, GenerationError
from deepseek.progress import Report, silent
from deepseek.sampling_fields import beneath

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepseek.config import ModelConfig
    from deepseek.engine.sequence import Mailbox
    from deepseek.sampling import SamplingParams

    Params = SamplingParams | Sequence[SamplingParams]
    SamplerMaker = Callable[["SamplingParams", int, Sequence[int], Sequence[int], int], TokenSampler]

_SWITCH_SECONDS = 0.0005  # so long the engine's thread waits after each step for one that computes in Python


class Engine:
    """Runs requests together, each as if it were alone: a request's text depends on no other request.

    Made by `from_pretrained`; any thread and any event loop may use it. `close` it, or use it in a `with` block.
    """

    def __new__(cls, *_: Any, **named: Any) -> Self:
        """Says what to write instead of `Engine(model="name")`, which is how others construct one."""
        if "model" in named:
            raise ConfigError(_loads_no_model(named["model"]))
        return super().__new__(cls)

    def __init__(
        self,
        runner: Runner,
        tokenizer: TextTokenizer | None = None,
        config: EngineConfig | None = None,
        *,
        make_sampler: "SamplerMaker | None" = None,
    ) -> None:
        """For what runs a model otherwise; `from_pretrained` loads one.

        `make_sampler(params, vocab_size, prompt_ids, eos_ids, index)`; None: `deepseek.engine.sampler.Samplers`."""
        if isinstance(runner, str | os.PathLike):
            raise ConfigError(_loads_no_model(runner))
        self.config = config or EngineConfig()
        self.model_config = runner.config
        self.tokenizer = tokenizer
        self.eos_ids = _eos_ids(runner.config, tokenizer)
        self.recommended_sampling: Mapping[str, Any] = {}
        self.max_model_len = _max_model_len(self.config, runner)
        self._make_sampler = make_sampler or _samplers(tokenizer)
        self._numbers = itertools.count(1)
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopMailbox] = weakref.WeakKeyDictionary()
        core = EngineCore(runner, _scheduler(self.config, runner), max_queue=self.config.max_queue,
                          record_routing=self.config.record_routing)  # fmt: skip
        self._core = core
        self._routing = runner.routing
        self._close = weakref.finalize(self, _close, core, runner)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        revision: str | None = None,
        report: Report = silent,
        **settings: Any,
    ) -> Self:
        """Load a model by name, folder or file. settings: fields of EngineConfig, by name.

        Tunes the interpreter too: what is loaded is kept from the garbage collector, and threads take turns faster.
        """
        from deepseek.engine.loading import load_runner
        from deepseek.engine.recommended_sampling import recommended
        from deepseek.hub import resolve
        from deepseek.tokenizer import AutoTokenizer

        config = EngineConfig.of(settings)
        path = resolve(name, revision=revision, report=report).path
        engine = cls(load_runner(path, config, report), AutoTokenizer.from_pretrained(path), config)
        engine.recommended_sampling = recommended(path, os.fspath(name))
        gc.collect()
        gc.freeze()  # what is loaded stays: later collections need not look at it
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
        return engine

    @overload
    def generate(self, prompts: Prompt, params: "SamplingParams | None" = None, **fields: Any) -> Generation: ...
    @overload
    def generate(
        self, prompts: Sequence[Prompt], params: "Params | None" = None, **fields: Any
    ) -> list[Generation]: ...
    def generate(
        self, prompts: Prompts, params: "Params | None" = None, **fields: Any
    ) -> Generation | list[Generation]:
        """Continue one prompt (a text or ids) or a list of them; lists give lists.

        params, one or one for each prompt, or fields of SamplingParams by name (`max_tokens=64, temperature=0`); fields
        of RequestOptions by name (`priority=1`). Prompts beyond the queue's length are given in as others end. Raises
        GenerationError for a prompt that is empty or too long and for contradictory settings.
        """
        many = given.is_many(prompts)
        batch: list[Any] = list(prompts) if many else [prompts]
        each, options = given.settle(params, fields, len(batch))
        mailbox = ThreadMailbox()
        requests = [
            self._request(prompt, own, options, mailbox, index)
            for index, (prompt, own) in enumerate(zip(batch, each, strict=True))
        ]
        results = self._run_all(requests, mailbox)
        return results if many else results[0]

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]] | str,
        params: "SamplingParams | None" = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **fields: Any,
    ) -> Generation:
        """The answer to a conversation: messages as in OpenAI's API, or what a user says as a text.

        The model's chat template makes the prompt; tools are described in it. params and fields as for `generate`; what
        they leave out is as the model's makers recommend, where no params are given as an object.
        """
        if params is None and "sampling_params" not in fields:
            fields = beneath(self.recommended_sampling, fields)
        return self.generate(self.chat_prompt(messages, tools=tools), params, **fields)

    def chat_prompt(
        self, messages: Sequence[Mapping[str, Any]] | str, *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """A conversation as token ids, for `generate` and `stream`. Raises GenerationError without a chat template."""
        if self.tokenizer is None:
            raise GenerationError("a chat needs an engine with a tokenizer")
        return given.chat_ids(messages, self.tokenizer, tools)

    def stream(self, prompt: Prompt, params: "SamplingParams | None" = None, **fields: Any) -> TokenStream:
        """The tokens of one prompt as they come; checks its arguments at once. Close the stream to stop early."""
        mailbox = ThreadMailbox()
        request = self._single(prompt, params, fields, mailbox)
        self._core.submit(request)
        return TokenStream(request, mailbox, self._core.abort)

    def stream_async(self, prompt: Prompt, params: "SamplingParams | None" = None, **fields: Any) -> AsyncTokenStream:
        """The same for `async for`, called in a running event loop; encodes the prompt in this thread, at once."""
        return self.start(self.prepare(prompt, params, **fields))

    def prepare(self, prompt: Prompt, params: "SamplingParams | None" = None, **fields: Any) -> Request:
        """For `start`: everything that may take long, such as encoding text and compiling grammars; in any thread."""
        return self._single(prompt, params, fields, None)

    def start(self, request: Request) -> AsyncTokenStream:
        """The tokens of a request from `prepare` for `async for`, called in a running event loop. Takes no time."""
        loop = asyncio.get_running_loop()
        mailbox = self._loops.get(loop)
        if mailbox is None:
            mailbox = self._loops[loop] = LoopMailbox(loop)
        request.mailbox = mailbox
        events = mailbox.open(request)
        try:
            self._core.submit(request)
        except BaseException:
            mailbox.shut(request)
            raise
        return AsyncTokenStream(request, mailbox, events, self._core.abort)

    def embed(
        self, prompts: Prompts, *, pooling: PoolingKind = "mean", normalize: bool = True, **fields: Any
    ) -> "NDArray[np.float32]":
        """One prompt (a text or ids) as a vector (hidden_size,), or a list of them as (prompts, hidden_size).

        The final hidden states of the prompt's tokens, their mean or the last one. normalize: to length 1. fields: of
        RequestOptions by name. Raises GenerationError as `generate` does.
        """
        check_pooling(pooling)
        (params,), options = given.settle(None, {"max_tokens": 1, **fields})
        mailbox = ThreadMailbox()
        many = given.is_many(prompts)
        requests = []
        for index, prompt in enumerate(list(prompts) if many else [prompts]):
            requests.append(self._request(prompt, params, options, mailbox, index))
            requests[-1].pooling = Pooling(pooling)
        aborted = [result.finish_reason for result in self._run_all(requests, mailbox)].count("abort")
        if aborted:
            raise GenerationError(f"{aborted} of {len(requests)} prompts were aborted")
        vectors = [request.pooling.vector(normalize=normalize) for request in requests if request.pooling]
        if not many:
            return vectors[0]
        return np.stack(vectors) if vectors else np.empty((0, self.model_config.hidden_size), np.float32)

    def abort(self, request_id: str) -> None:
        """End a request within a step; its samples end with finish_reason "abort". Unknown ids have ended already."""
        self._core.abort(request_id)

    def routing_totals(self) -> "dict[int, NDArray[np.int64]]":
        """For each layer with experts, how many tokens each expert was given while routing was recorded."""
        record = self._routing
        return {} if record is None else {layer: record.totals[at].copy() for at, layer in enumerate(record.layers)}

    def load(self) -> EngineLoad:
        """What the engine has to do at this moment; from any thread."""
        return self._core.load()

    @property
    def expert_layers(self) -> tuple[int, ...]:
        """Numbers of the layers with experts."""
        return () if self._routing is None else self._routing.layers

    def close(self) -> None:
        """Abort what runs, end the thread, free the memory. Closing twice is fine."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _single(
        self, prompt: Prompt, params: "SamplingParams | None", fields: dict[str, Any], mailbox: "Mailbox | None"
    ) -> Request:
        (settled,), options = given.settle(params, fields)
        return self._request(prompt, settled, options, mailbox)

    def _request(
        self, prompt: Any, params: "SamplingParams", options: RequestOptions, mailbox: "Mailbox | None", index: int = 0
    ) -> Request:
        ids = given.prompt_ids(prompt, self.tokenizer)
        scores = params.max_tokens == 1  # the one token is predicted from the whole context, and never read
        limit, vocab_size = self.max_model_len, self.model_config.vocab_size
        given.check_prompt(ids, vocab_size, limit, scores=scores, fix=self.longer_prompts)
        if params.stop and self.tokenizer is None:
            raise GenerationError("stop strings need an engine with a tokenizer; without one use stop_token_ids")
        if options.record_routing and self._routing is None:
            raise GenerationError("this model has no experts: record_routing must be False")
        eos_ids = () if params.ignore_eos else self.eos_ids
        # The request must not hold the engine: an engine that nobody holds any more closes itself.
        make_sampler, tokenizer = self._make_sampler, self.tokenizer
        return Request(
            id=self._id(options, index),
            prompt_ids=ids,
            params=params,
            make_sampler=lambda sample: make_sampler(params, vocab_size, ids, eos_ids, sample),
            limit=len(ids) + 1 if scores else min(len(ids) + params.max_tokens, limit),
            priority=options.priority,
            ends=frozenset((*params.stop_token_ids, *eos_ids)),
            prefix_root=root_key(options.cache_salt),
            make_answer=lambda: _answer(tokenizer, params),
            index=index,
            mailbox=mailbox,
            routing_layers=self._routing.layers if options.record_routing and self._routing else None,
        )

    @property
    def longer_prompts(self) -> str:
        """How to fix a prompt that is too long."""
        model = self.model_config.max_position_embeddings
        if self.max_model_len >= model:
            return "shorten the prompt, the model takes no more"
        wanted = self.config.max_model_len
        return f"shorten the prompt, or raise {'kv_cache_bytes' if wanted is None else 'max_model_len'}"

    def _id(self, options: RequestOptions, index: int) -> str:
        if options.request_id is None:
            return f"request-{next(self._numbers)}"
        return f"{options.request_id}-{index}" if index else options.request_id

    def _run_all(self, requests: list[Request], mailbox: ThreadMailbox) -> list[Generation]:
        """Submit as many as the queue takes, fold their events, go on until all have ended."""
        folds = [GenerationFold(request, has_text=self.tokenizer is not None) for request in requests]
        window = 2 * self.config.max_num_seqs
        submitted = ended = 0
        try:
            while ended < len(requests):
                while submitted < len(requests) and submitted - ended < window:
                    try:
                        self._core.submit(requests[submitted])
                    except QueueFull:
                        if submitted == ended:
                            raise
                        break
                    submitted += 1
                for request, event in mailbox.take():
                    ended += folds[request.index].add(event)
        except BaseException:
            for request in requests[:submitted]:
                self._core.abort(request.id)
            raise
        return [fold.result() for fold in folds]


def _eos_ids(config: "ModelConfig", tokenizer: Any) -> tuple[int, ...]:
    """What ends an answer, from every file that knows it: the model's configuration first, then the tokenizer's."""
    known: frozenset[int] = getattr(tokenizer, "end_ids", frozenset())
    return tuple(dict.fromkeys((*config.eos_token_ids, *sorted(token for token in known if token < config.vocab_size))))


def _loads_no_model(name: Any) -> str:
    return f"Engine() loads no model: write Engine.from_pretrained({str(name)!r:.200})"


def _close(core: EngineCore, runner: Runner) -> None:
    core.close()
    runner.close()


def _answer(tokenizer: TextTokenizer | None, params: "SamplingParams") -> AnswerText | None:
    if tokenizer is None:
        return None
    return AnswerText(tokenizer.stream(skip_special_tokens=params.skip_special_tokens), params)


def _samplers(tokenizer: TextTokenizer | None) -> "SamplerMaker":
    from deepseek.engine.sampler import Samplers

    return Samplers(tokenizer)


def _max_model_len(config: EngineConfig, runner: Runner) -> int:
    """What the model takes and the cache holds; what is asked for beyond that is refused."""
    model, cache = runner.config.max_position_embeddings, runner.n_blocks * runner.block_size
    wanted = config.max_model_len
    if wanted is None:
        return min(model, cache)
    if wanted > model:
        raise ConfigError(f"max_model_len is {wanted}, but the model takes {model} (max_position_embeddings): lower it")
    if wanted > cache:
        raise ConfigError(
            f"max_model_len is {wanted}, but the KV cache holds {cache} tokens: lower it or raise kv_cache_bytes"
        )
    return wanted


def _scheduler(config: EngineConfig, runner: Runner) -> Scheduler:
    max_sequences = min(config.max_num_seqs, runner.max_sequences)
    max_tokens = min(config.max_num_batched_tokens, runner.max_tokens_per_step)
    if max_tokens <= max_sequences:
        raise ConfigError(
            f"max_num_batched_tokens ({max_tokens}) must be above max_num_seqs ({max_sequences}): raise the first"
        )
    pace, step_seconds = Pace(), config.step_milliseconds / 1000
    blocks = KVBlocks(
        n_blocks=runner.n_blocks,
        block_size=runner.block_size,
        copy_block=runner.copy_block,
        caching=config.enable_prefix_caching,
        forms_differ=runner.config.mla is not None,
    )
    speculator = None
    if config.speculation != "off":
        drafter: Drafter = PromptLookup()
        if runner.prediction_layers:
            drafter = PredictionLayers(runner, blocks, step_seconds=step_seconds)
        always = config.speculation == "always"
        speculator = Speculator(drafter, pace, max_drafts=config.max_drafts, always=always)
    return Scheduler(
        blocks=blocks,
        pace=pace,
        max_sequences=max_sequences,
        max_tokens=max_tokens,
        logit_rows=max(runner.max_sequences, LOGIT_ROWS),
        max_decode_steps=config.max_decode_steps,
        step_seconds=step_seconds,
        speculator=speculator,
    )
