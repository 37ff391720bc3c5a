"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's API."""

import secrets
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from deepseek.sampling import SamplingParams
from deepseek.server import sse
from deepseek.server.anthropic_messages import chat_messages, function_tools, is_continued
from deepseek.server.chat import ChatAnswer, ChatTask, Said, begin_chat, chat_prompt
from deepseek.server.errors import ENVELOPES, ApiError, error_event
from deepseek.server.generation import Wish
from deepseek.server.message_stream import MessageStream
from deepseek.server.openapi_document import answers_with
from deepseek.server.protocol import answers
from deepseek.server.protocol import message_events as out
from deepseek.server.protocol.fields import length_limit, sampling_params
from deepseek.server.protocol.ignored_fields import ignore
from deepseek.server.protocol.messages import THREAD_NOT_FOUND, CountTokensRequest, MessagesRequest
from deepseek.server.protocol.tools import FunctionName
from deepseek.server.reasoning_switch import switches, with_effort
from deepseek.server.routes.shared import json_response, new_router, serving, wish_for
from deepseek.server.service import Service

PATH = "/v1/messages"
router = new_router("messages")

_ERROR_KINDS = {"server_error": "api_error", "unavailable_error": "overloaded_error"}
_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "seed",
)  # fmt: skip
_PING = b'event: ping\ndata: {"type":"ping"}\n\n'


def anthropic_envelope(error: ApiError) -> dict[str, Any]:
    kind = _ERROR_KINDS.get(error.kind, error.kind)
    body: dict[str, Any] = {"type": kind, "message": error.message}
    if error.code == THREAD_NOT_FOUND:  # by which the SDKs know to send the whole history
        body["details"] = {"error_code": error.code}
    return {"type": "error", "error": body}


ENVELOPES[PATH] = anthropic_envelope


@router.post(PATH, responses=answers_with(out.MessageAnswer, streams=True))
async def messages(body: MessagesRequest, request: Request) -> Response:
    """Answer a chat, whole or as a stream of server-sent events."""
    service = serving(request)
    model = service.check_model(body.model)
    answer_id = f"msg_{secrets.token_hex(16)}"
    task = _task(service, body, wish_for(request, answer_id, priority=body.priority, cache_salt=body.cache_salt))
    hide = body.thinking is not None and body.thinking.display == "omitted"

    def telling(answer: ChatAnswer) -> "_Telling":
        message = out.MessageAnswer(answer_id, model, _usage(answer), [])
        return _Telling(service, MessageStream(message, hide_thinking=hide), answer)

    if body.stream:
        return sse.EventStream(telling(await begin_chat(service, task)).pieces())

    async def complete() -> Response:
        return await telling(await begin_chat(service, task)).whole()

    return await sse.whole(request, complete())


@router.post(f"{PATH}/count_tokens")
async def count_tokens(body: CountTokensRequest, request: Request) -> Response:
    """How long the prompt would be."""
    service = serving(request)
    service.check_model(body.model)
    task = _prompt(service, body, wish_for(request, ""), SamplingParams())
    ids = await service.in_thread(lambda: chat_prompt(service, task))
    return json_response({"input_tokens": len(ids)})


class _Telling:
    """How one request is answered: the stream's events, or their sum."""

    def __init__(self, service: Service, stream: MessageStream, answer: ChatAnswer) -> None:
        self._service = service
        self._stream = stream
        self._answer = answer

    async def whole(self) -> Response:
        async with aclosing(self._events()) as events:
            async for _ in events:
                pass
        return json_response(self._stream.message)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """One for each step. It begins with the first: how much of the prompt was cached is known then."""
        has_begun = False
        try:
            async with aclosing(self._events()) as steps:
                async for events in steps:
                    start = b"" if has_begun else _encoded(self._stream.start(_usage(self._answer)))
                    has_begun = True
                    yield start + (_encoded(events) if events is not None else _PING)
        except Exception as error:  # noqa: BLE001  the stream has begun: whatever it is, it is told there
            yield b"event: error\n" + sse.event(error_event(PATH, error))

    async def _events(self) -> AsyncGenerator[list[out.Event] | None, None]:
        """Those of each step but `message_start`; None where nothing came for a while."""
        async with aclosing(self._answer.steps()) as steps:
            async for step in steps:
                if not step:
                    yield None
                for said in step:
                    events = self._stream.add(said)
                    if said.finish_reason is not None:
                        events += self._stream.end(*self._stopped(said), _usage(self._answer))
                    if events:
                        yield events

    def _stopped(self, said: Said) -> tuple[str, str | None]:
        if said.finish_reason == "tool_calls":
            return "tool_use", None
        if said.finish_reason == "stop":
            stop = said.delta.stopped_by
            return ("end_turn" if stop is None else "stop_sequence"), stop
        answer = self._answer.answer
        is_full = answer.prompt_tokens + answer.generated_tokens >= self._service.engine.max_model_len
        return ("model_context_window_exceeded" if is_full else "max_tokens"), None


def _encoded(events: Iterable[out.Event]) -> bytes:
    parts: list[bytes] = []
    for event in events:
        parts += (b"event: ", str(event.__struct_config__.tag).encode(), b"\n", sse.event(answers.encode(event)))
    return b"".join(parts)


def _usage(answer: ChatAnswer) -> out.MessageUsage:
    told = answer.answer
    return out.MessageUsage(told.prompt_tokens - told.cached_tokens, told.generated_tokens, told.cached_tokens)


def _task(service: Service, body: MessagesRequest, wish: Wish) -> ChatTask:
    chosen = {name: value for name in _SAMPLING if (value := getattr(body, name)) is not None}
    if body.stop_sequences is not None:
        chosen["stop"] = body.stop_sequences
    limit = length_limit(service.engine.max_model_len, body.max_tokens)
    params = sampling_params({**service.chat_defaults, **chosen, "max_tokens": max(limit, 1)})
    return replace(_prompt(service, body, wish, params), prompt_only=limit == 0)


def _prompt(service: Service, body: CountTokensRequest, wish: Wish, params: SamplingParams) -> ChatTask:
    continued = is_continued(body)
    choice = body.tool_choice
    form = body.output_config.format if body.output_config is not None else None
    values, budget = _thinking(service, body)
    return ChatTask(
        messages=chat_messages(body),
        sampling=params,
        wish=wish,
        structured_field="output_config.format",
        structured=None if form is None else form.structured,
        tools=function_tools(body.tools),
        tool_choice=_tool_choice(body),
        parallel_tool_calls=choice is None or not choice.disable_parallel_tool_use,
        add_generation_prompt=not continued,
        continue_final_message=continued,
        template_values=values,
        thinking_budget=budget,
    )


def _tool_choice(body: CountTokensRequest) -> Literal["auto", "none", "required"] | FunctionName:
    """As `ChatTask.tool_choice`."""
    choice = body.tool_choice
    if choice is None:
        return "auto"
    if choice.name is not None:
        return FunctionName(name=choice.name)
    return "none" if choice.type == "none" else "auto" if choice.type == "auto" else "required"


def _thinking(service: Service, body: CountTokensRequest) -> tuple[dict[str, Any], int | None]:
    """What the chat template is told of reasoning, and how many tokens of it there may be."""
    template, wanted = service.template_text, body.thinking
    effort = body.output_config.effort if body.output_config is not None else None
    values = with_effort(template, body.chat_template_kwargs, effort, "output_config.effort")
    if wanted is None:
        return values, None
    reasons = service.parsers.reasoning is not None
    names = switches(template)
    if wanted.type == "enabled" and not reasons and not names:
        ignore("thinking")
    values |= dict.fromkeys(names, wanted.type != "disabled")
    if wanted.type == "disabled":
        return values, 0 if reasons and not names else None
    return values, wanted.budget if reasons else None
