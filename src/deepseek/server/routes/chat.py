"""POST /v1/chat/completions."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from deepseek.server import sse
from deepseek.server.chat import ChatAnswer, ChatTask, Said, begin_chat
from deepseek.server.chat_calls import ChatCalls
from deepseek.server.errors import error_event
from deepseek.server.generation import Wish
from deepseek.server.openapi_document import answers_with
from deepseek.server.protocol import answers as out
from deepseek.server.protocol.chat import ChatCompletionRequest
from deepseek.server.protocol.fields import length_limit
from deepseek.server.reasoning_switch import usable_budget, with_effort, with_thinking
from deepseek.server.routes.shared import json_response, new_router, serving, usage_of, wish_of
from deepseek.server.service import Service, new_id
from deepseek.server.token_views import experts_of

PATH = "/v1/chat/completions"
router = new_router("chat")


@router.post(PATH, responses=answers_with(out.ChatCompletion, streams=True))
async def chat_completions(body: ChatCompletionRequest, request: Request) -> Response:
    """Answer a chat, whole or as a stream of server-sent events."""
    service = serving(request)
    model = service.check_model(body.model)
    answer_id = new_id("chatcmpl", body.request_id)
    task = _task(service, body, wish_of(request, body, answer_id))
    telling = _Telling(service, body, model, answer_id)
    if body.stream:
        return sse.EventStream(telling.chunks(await begin_chat(service, task)))

    async def complete() -> Response:
        return await telling.whole(await begin_chat(service, task))

    return await sse.whole(request, complete())


def _task(service: Service, body: ChatCompletionRequest, wish: Wish) -> ChatTask:
    limit = length_limit(service.engine.max_model_len, body.max_tokens, body.max_completion_tokens)
    more: dict[str, Any] = {"max_tokens": max(limit, 1)}
    if body.logprobs:
        more["logprobs"] = body.top_logprobs or 0
    template = service.template_text
    values = with_effort(template, body.chat_template_kwargs, body.reasoning_effort)
    return ChatTask(
        messages=[message.model_dump(exclude_none=True) for message in body.messages],
        sampling=body.sampling(service.chat_defaults, service.engine.model_config.vocab_size, **more),
        structured=body.structured(),
        tools=body.offered,
        tool_choice=body.choice,
        parallel_tool_calls=body.parallel_tool_calls is not False and not body.functions,
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        template_values=with_thinking(template, values, body.enable_thinking, "enable_thinking"),
        thinking_budget=usable_budget(
            body.thinking_budget, reasons=service.parsers.reasoning is not None, field="thinking_budget"
        ),
        prompt_only=limit == 0,
        wish=wish,
    )


class _Telling:
    """How one request is answered."""

    def __init__(self, service: Service, body: ChatCompletionRequest, model: str, answer_id: str) -> None:
        self._service = service
        self._body = body
        self._model = model
        self._id = answer_id
        self._created = int(time.time())
        self._views = service.token_id_views if body.return_tokens_as_token_ids else service.token_views
        self._calls = [ChatCalls(body.custom_tools, older=bool(body.functions)) for _ in range(body.n or 1)]

    async def whole(self, answer: ChatAnswer) -> Response:
        choices = [_ChoiceFold(index) for index in range(answer.answer.params.n)]
        async with aclosing(answer.steps()) as steps:
            async for step in steps:
                for said in step:
                    choices[said.delta.sample].add(self._choice(said))
        usage = usage_of(answer.answer, reasoning_tokens=answer.reasoning_tokens)
        completion = out.ChatCompletion(self._id, self._created, self._model, [one.told() for one in choices], usage)
        if self._body.return_token_ids:
            completion.prompt_token_ids = answer.answer.prompt_ids
        return json_response(completion)

    async def chunks(self, answer: ChatAnswer) -> AsyncGenerator[bytes, None]:
        """One piece for each step."""
        chunk = out.ChatChunk(self._id, self._created, self._model, [])
        options = self._body.stream_options
        if options is not None and options.include_usage:
            chunk.usage = None
        try:
            async with aclosing(answer.steps()) as steps:
                if self._body.return_token_ids:
                    chunk.prompt_token_ids = answer.answer.prompt_ids
                begun = out.ChatDelta(role="assistant", content="")
                yield sse.choice_events(
                    chunk, [out.ChatChunkChoice(index, begun) for index in range(answer.answer.params.n)]
                )
                chunk.prompt_token_ids = msgspec.UNSET
                async for step in steps:
                    if options is not None and options.continuous_usage_stats:
                        chunk.usage = usage_of(answer.answer, reasoning_tokens=answer.reasoning_tokens)
                    yield sse.choice_events(chunk, [self._choice(said) for said in step])
            if options is not None and options.include_usage:
                chunk.choices = []
                chunk.usage = usage_of(answer.answer, reasoning_tokens=answer.reasoning_tokens)
                yield sse.event(out.encode(chunk))
        except Exception as error:  # noqa: BLE001  the stream has begun: whatever it is, it is told there
            yield sse.event(error_event(PATH, error))
        yield sse.DONE

    def _choice(self, said: Said) -> out.ChatChunkChoice:
        delta = out.ChatDelta(content=said.content or None)
        if said.reasoning and self._body.include_reasoning:
            delta.reasoning_content = said.reasoning
        finish_reason = said.finish_reason
        if said.tool_calls or finish_reason is not None:
            finish_reason = self._calls[said.delta.sample].add_to_delta(said, delta)
        choice = out.ChatChunkChoice(said.delta.sample, delta, None, finish_reason)
        if self._body.return_token_ids:
            choice.token_ids = said.delta.token_ids
        visible = said.delta.n_visible
        if said.delta.logprobs:
            choice.logprobs = self._logprobs(said)
        if said.delta.prompt_routing is not None:
            choice.prompt_routed_experts = experts_of(said.delta.prompt_routing)
        if said.delta.routing is not None:
            choice.routed_experts = experts_of(said.delta.routing, visible)
        return choice

    def _logprobs(self, said: Said) -> out.ChatLogprobs:
        """Of the content apart from those of the reasoning, as DeepSeek's own service tells them."""
        views, most = self._views, self._body.top_logprobs or 0
        scored = said.delta.logprobs[: said.delta.n_visible]
        told = out.ChatLogprobs(views.chat_logprobs(scored[said.n_before :], most))
        if said.n_before and self._body.include_reasoning:
            told.reasoning_content = views.chat_logprobs(scored[: said.n_before], most)
        return told


class _ChoiceFold:
    """The sum of one sample's chunks."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._contents: list[str] = []
        self._reasonings: list[str] = []
        self._calls: list[out.ToolCall] = []
        self._function_call: out.FunctionCall | msgspec.UnsetType = msgspec.UNSET
        self._logprobs: out.ChatLogprobs | None = None
        self._finish_reason = ""
        self._token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET
        self._experts: list[out.TokenExperts] | msgspec.UnsetType = msgspec.UNSET
        self._prompt_experts: list[out.TokenExperts] | msgspec.UnsetType = msgspec.UNSET

    def add(self, choice: out.ChatChunkChoice) -> None:
        delta = choice.delta
        self._contents.append(delta.content or "")
        self._reasonings.append(delta.reasoning_content or "")
        for call in delta.tool_calls or ():
            self._add_call(call)
        if delta.function_call is not None:
            self._add_function_call(delta.function_call)
        if choice.logprobs is not None:
            if self._logprobs is None:
                self._logprobs = choice.logprobs
            else:
                self._logprobs.add(choice.logprobs)
        if isinstance(choice.token_ids, list):
            self._token_ids = [*(self._token_ids or ()), *choice.token_ids]
        if isinstance(choice.routed_experts, list):
            self._experts = [*(self._experts or ()), *choice.routed_experts]
        if isinstance(choice.prompt_routed_experts, list):
            self._prompt_experts = choice.prompt_routed_experts
        self._finish_reason = choice.finish_reason or self._finish_reason

    def _add_call(self, call: out.ToolCallDelta) -> None:
        if call.custom is not None:
            custom = out.CustomCall(call.custom.name or "", call.custom.input)
            self._calls.append(out.ToolCall(call.id or "", type="custom", custom=custom))
        elif call.function is not None:
            if call.function.name is not None:
                self._calls.append(out.ToolCall(call.id or "", out.FunctionCall(call.function.name, "")))
            function = self._calls[call.index].function
            assert isinstance(function, out.FunctionCall)
            function.arguments += call.function.arguments

    def _add_function_call(self, call: out.CalledFunction) -> None:
        if not isinstance(self._function_call, out.FunctionCall):
            self._function_call = out.FunctionCall(call.name or "", "")
        self._function_call.arguments += call.arguments

    def told(self) -> out.ChatChoice:
        content, reasoning = "".join(self._contents), "".join(self._reasonings)
        called = self._calls or isinstance(self._function_call, out.FunctionCall)
        message = out.AnswerMessage(content if content or not called else None, function_call=self._function_call)
        if reasoning:
            message.reasoning_content = reasoning
        if self._calls:
            message.tool_calls = self._calls
        return out.ChatChoice(
            self._index, message, self._logprobs, self._finish_reason, self._experts, self._prompt_experts,
            self._token_ids,
        )  # fmt: skip
