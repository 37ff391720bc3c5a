"""POST /v1/completions."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from deepseek.sampling import SamplingParams
from deepseek.server import sse
from deepseek.server.errors import error_event
from deepseek.server.fill_in_the_middle import gap_prompt
from deepseek.server.generation import Answer, Delta, Wish, begin
from deepseek.server.openapi_document import answers_with
from deepseek.server.protocol import answers as out
from deepseek.server.protocol.completions import CompletionRequest
from deepseek.server.protocol.fields import length_limit
from deepseek.server.routes.shared import json_response, new_router, serving, text_prompt, usage_of, wish_of
from deepseek.server.service import Service, new_id
from deepseek.server.token_views import LegacyLogprobs, experts_of

PATH = "/v1/completions"
router = new_router("completions")


@router.post(PATH, responses=answers_with(out.Completion, streams=True))
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Continue one text or several, whole or as a stream of server-sent events."""
    service = serving(request)
    model = service.check_model(body.model)
    answer_id = new_id("cmpl", body.request_id)
    work = _Work(service, body, wish_of(request, body, answer_id), model)
    if body.stream:
        return sse.EventStream(work.chunks(await work.begin_all()))
    return await sse.whole(request, work.whole())


class _Work:
    """One request: its prompts are continued together, as many at a time as run together."""

    def __init__(self, service: Service, body: CompletionRequest, wish: Wish, model: str) -> None:
        self._service = service
        self._body = body
        self._wish = wish
        self._chunk = out.Completion(wish.request_id, int(time.time()), model, [])
        self._structured = body.structured()
        self._limit = length_limit(service.engine.max_model_len, body.max_tokens)
        self._params = self._sampling()
        self._n = self._params.n

    def _sampling(self) -> SamplingParams:
        body = self._body
        more: dict[str, Any] = {"max_tokens": max(self._limit, 1), "structured": self._structured}
        if body.logprobs is not None:
            more["logprobs"] = body.logprobs
            if body.echo:
                more["prompt_logprobs"] = body.logprobs
        return body.sampling(self._service.sampling_defaults, self._service.engine.model_config.vocab_size, **more)

    async def begin(self, place: int) -> "_Prompt":
        body, prompt = self._body, self._body.prompts[place]
        service = self._service

        def make() -> tuple[list[int], SamplingParams]:
            if not isinstance(prompt, str):
                return prompt, self._params
            if body.suffix is not None:
                return service.within_context(gap_prompt, service.tokenizer, prompt, body.suffix), self._params
            return text_prompt(service, prompt, add_special_tokens=body.add_special_tokens), self._params

        wish = replace(self._wish, request_id=f"{self._wish.request_id}-{place}") if place else self._wish
        answer = await begin(service, make, wish, slow=self._structured is not None)
        if not isinstance(prompt, str):
            return _Prompt(service, body, answer, place * self._n, service.tokenizer.decode(prompt), 0)
        n_added = len(service.tokenizer.added_around[0]) if body.add_special_tokens else 0
        return _Prompt(service, body, answer, place * self._n, prompt, n_added if prompt else len(answer.prompt_ids))

    async def begin_all(self) -> "list[_Prompt]":
        """All of them; where one is refused, the others are ended."""
        begun: list[_Prompt] = []
        try:
            for place in range(len(self._body.prompts)):
                begun.append(await self.begin(place))
        except BaseException:
            for prompt in begun:
                await prompt.answer.aclose()
            raise
        return begun

    async def whole(self) -> Response:
        seats = asyncio.Semaphore(max(1, 2 * self._service.config.max_num_seqs // self._n))
        choices: list[out.CompletionChoice] = []

        async def run(place: int) -> Answer:
            async with seats:
                prompt = await self.begin(place)
                folds = [_ChoiceFold(prompt.first + sample) for sample in range(self._n)]
                async with aclosing(prompt.steps()) as steps:
                    async for step in steps:
                        for choice in step:
                            folds[choice.index - prompt.first].add(choice)
                choices.extend(fold.choice for fold in folds)
                return prompt.answer

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(run(place)) for place in range(len(self._body.prompts))]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        self._chunk.choices = sorted(choices, key=lambda choice: choice.index)
        self._chunk.usage = self._usage([task.result() for task in tasks])
        return json_response(self._chunk)

    async def chunks(self, prompts: "list[_Prompt]") -> AsyncGenerator[bytes, None]:
        """One piece for each step of each prompt."""
        chunk, options = self._chunk, self._body.stream_options
        wants_usage = options is not None and options.include_usage
        if wants_usage:
            chunk.usage = None
        try:
            async with aclosing(_together(prompts)) as steps:
                async for step in steps:
                    if options is not None and options.continuous_usage_stats:
                        chunk.usage = self._usage([prompt.answer for prompt in prompts])
                    yield sse.choice_events(chunk, step)
            if wants_usage:
                chunk.choices, chunk.usage = [], self._usage([prompt.answer for prompt in prompts])
                yield sse.event(out.encode(chunk))
        except Exception as error:  # noqa: BLE001  the stream has begun: whatever it is, it is told there
            yield sse.event(error_event(PATH, error))
        yield sse.DONE

    def _usage(self, answers: list[Answer]) -> out.Usage:
        usage = usage_of(*answers)
        if self._body.max_tokens == 0:
            usage.completion_tokens, usage.total_tokens = 0, usage.prompt_tokens
        return usage


async def _together(prompts: "list[_Prompt]") -> AsyncGenerator[list[out.CompletionChoice], None]:
    """The steps of all prompts as they come."""
    if len(prompts) == 1:
        async with aclosing(prompts[0].steps()) as steps:
            async for step in steps:
                yield step
        return
    queue: asyncio.Queue[list[out.CompletionChoice] | BaseException | None] = asyncio.Queue()

    async def follow(prompt: _Prompt) -> None:
        try:
            async with aclosing(prompt.steps()) as steps:
                async for step in steps:
                    queue.put_nowait(step)
            queue.put_nowait(None)
        except Exception as error:  # noqa: BLE001  raised again by the reader
            queue.put_nowait(error)

    tasks = [asyncio.create_task(follow(prompt)) for prompt in prompts]
    try:
        running = len(tasks)
        while running:
            came = await queue.get()
            if isinstance(came, BaseException):
                raise came
            if came is None:
                running -= 1
            else:
                yield came
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class _Prompt:
    """One prompt that runs. first: index of its first choice; text: as echoed, which is without n_added tokens."""

    service: Service
    body: CompletionRequest
    answer: Answer
    first: int
    text: str
    n_added: int

    async def steps(self) -> AsyncGenerator[list[out.CompletionChoice], None]:
        tokenizer, params = self.service.tokenizer, self.answer.params
        unprinted = tokenizer.special_ids if params.skip_special_tokens else frozenset[int]()
        views = self.service.token_id_views if self.body.return_tokens_as_token_ids else self.service.token_views
        logprobs = [LegacyLogprobs(tokenizer, views, unprinted) for _ in range(params.n)]
        begun: set[int] = set()
        async with aclosing(self.answer.steps()) as steps:
            async for deltas in steps:
                told = []
                for delta in deltas:
                    is_first = delta.sample not in begun
                    begun.add(delta.sample)
                    told.append(self._choice(delta, logprobs[delta.sample], echo=self.body.echo and is_first))
                    if self.body.return_token_ids:
                        told[-1].token_ids = delta.token_ids if self.body.max_tokens != 0 else []
                        if is_first:
                            told[-1].prompt_token_ids = self.answer.prompt_ids
                yield told

    def _choice(self, delta: Delta, logprobs: LegacyLogprobs, *, echo: bool) -> out.CompletionChoice:
        body = self.body
        choice = out.CompletionChoice(self.first + delta.sample, delta.text, None, delta.finish_reason)
        if body.max_tokens == 0:
            choice.text, choice.finish_reason = "", "length"
        if echo:
            choice.text = self.text + choice.text
        if body.logprobs is not None:
            choice.logprobs = out.CompletionLogprobs([], [], [], [])
            if echo:
                prompt = self.answer.prompt_logprobs or []
                logprobs.add_prompt(choice.logprobs, self.answer.prompt_ids, prompt, self.n_added)
            if body.max_tokens != 0:
                logprobs.add(choice.logprobs, delta.logprobs)
        if delta.prompt_routing is not None:
            choice.prompt_routed_experts = experts_of(delta.prompt_routing)
        if delta.routing is not None:
            choice.routed_experts = experts_of(delta.routing)
        return choice


class _ChoiceFold:
    """The sum of one sample's chunks."""

    def __init__(self, index: int) -> None:
        self.choice = out.CompletionChoice(index, "")

    def add(self, choice: out.CompletionChoice) -> None:
        whole = self.choice
        whole.text += choice.text
        whole.finish_reason = choice.finish_reason
        if choice.logprobs is not None:
            if whole.logprobs is None:
                whole.logprobs = choice.logprobs
            else:
                whole.logprobs.extend(choice.logprobs)
        if isinstance(choice.prompt_token_ids, list):
            whole.prompt_token_ids = choice.prompt_token_ids
        if isinstance(choice.token_ids, list):
            whole.token_ids = [*(whole.token_ids or ()), *choice.token_ids]
        if isinstance(choice.prompt_routed_experts, list):
            whole.prompt_routed_experts = choice.prompt_routed_experts
        if isinstance(choice.routed_experts, list):
            known = whole.routed_experts if isinstance(whole.routed_experts, list) else []
            whole.routed_experts = known + choice.routed_experts
