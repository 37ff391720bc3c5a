"""POST /v1/responses and /v1/responses/input_tokens; GET and DELETE /v1/responses/{id}."""

import secrets
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from deepseek.sampling import SamplingParams
from deepseek.server import sse
from deepseek.server.chat import ChatAnswer, ChatTask, Said, begin_chat, chat_prompt
from deepseek.server.errors import ApiError, as_api_error
from deepseek.server.generation import Wish
from deepseek.server.openapi_document import answers_object, answers_with
from deepseek.server.protocol import response_events as out
from deepseek.server.protocol.answers import encode
from deepseek.server.protocol.fields import length_limit, sampling_params
from deepseek.server.protocol.ignored_fields import ignore_unknown
from deepseek.server.protocol.response_input import InputItem, read_items
from deepseek.server.protocol.responses import NamedTool, ResponsesRequest
from deepseek.server.reasoning_switch import usable_budget, with_effort
from deepseek.server.response_items import chat_messages, chosen_function, function_tools
from deepseek.server.response_stream import ResponseStream
from deepseek.server.routes.shared import json_response, new_router, serving, tenant_of, wish_for
from deepseek.server.service import Service

PATH = "/v1/responses"
router = new_router("responses")
_MAX_CONVERSATIONS = 8  # to each of which a request may refer: finding one reads the whole store
_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "seed",
    "stop", "min_tokens", "ignore_eos",
)  # fmt: skip


@router.post(PATH, responses=answers_with(out.ResponseAnswer, streams=True))
async def create(body: ResponsesRequest, request: Request) -> Response:
    """Answer items of a conversation, whole or as a stream of server-sent events.

    With previous_response_id the conversation goes on after a response that was stored.
    """
    service = serving(request)
    model = service.check_model(body.model)
    tenant = tenant_of(request)
    items = await _earlier(service, tenant, body.previous_response_id)
    items += await _resolved(service, tenant, body.items)
    response_id = f"resp_{secrets.token_hex(16)}"
    wish = wish_for(request, response_id, priority=body.priority, cache_salt=body.cache_salt)
    task = _task(service, body, wish, chat_messages(body.instructions, items))
    telling = _Telling(service, body, tenant, items, _response(body, task.sampling, response_id, model))
    if body.stream:
        return sse.EventStream(telling.pieces(await begin_chat(service, task)))

    async def complete() -> Response:
        return await telling.whole(await begin_chat(service, task))

    return await sse.whole(request, complete())


@router.post(f"{PATH}/input_tokens", responses=answers_object("response.input_tokens", input_tokens="integer"))
async def input_tokens(body: ResponsesRequest, request: Request) -> Response:
    """How long the prompt of such a request would be."""
    service = serving(request)
    service.check_model(body.model)
    tenant = tenant_of(request)
    items = await _earlier(service, tenant, body.previous_response_id)
    items += await _resolved(service, tenant, body.items)
    task = _task(service, body, wish_for(request, ""), chat_messages(body.instructions, items))
    ids = await service.in_thread(lambda: chat_prompt(service, task))
    return json_response({"object": "response.input_tokens", "input_tokens": len(ids)})


@router.get(f"{PATH}/{{response_id}}", responses=answers_with(out.ResponseAnswer))
async def retrieve(response_id: str, request: Request) -> Response:
    """A response that was stored."""
    service = serving(request)
    for name, value in request.query_params.items():
        if (name != "stream" or value.lower() in ("false", "0")) and ignore_unknown(name):
            continue
        raise ApiError(400, f"{name!r:.100} is not supported here: leave it out", param=name[:100])
    tenant = tenant_of(request)
    found = await service.in_thread(lambda: service.responses.response(tenant, response_id))
    if found is None:
        raise _not_found(response_id)
    return Response(found, media_type="application/json")


@router.delete(f"{PATH}/{{response_id}}", responses=answers_object("response", id="string", deleted="boolean"))
async def delete(response_id: str, request: Request) -> Response:
    """Forget it. Responses that went on from it stay whole."""
    service = serving(request)
    tenant = tenant_of(request)
    if not await service.in_thread(lambda: service.responses.delete(tenant, response_id)):
        raise _not_found(response_id)
    return json_response({"id": response_id, "object": "response", "deleted": True})


def _not_found(response_id: str) -> ApiError:
    return ApiError(404, f"there is no response {response_id!r:.100}: it was not stored, or is forgotten by now")


async def _earlier(service: Service, tenant: str, response_id: str | None) -> list[InputItem]:
    """The conversation up to a response that was stored, with it."""
    if not response_id:
        return []
    found = await service.in_thread(lambda: service.responses.items(tenant, response_id))
    if found is None:
        raise ApiError(
            400, f"previous_response_id names {response_id!r:.100}, which was not stored or is forgotten by now: "
            "send its items in input", param="previous_response_id", code="previous_response_not_found",
        )  # fmt: skip
    return read_items(msgspec.json.decode(found))


async def _resolved(service: Service, tenant: str, items: Sequence[InputItem]) -> list[InputItem]:
    """With the stored items that references name. Raises ApiError for those that are not there."""
    wanted = [item.id for item in items if item.type == "item_reference" and item.id is not None]
    known: dict[str, InputItem] = {}
    n_conversations = 0
    for item_id in reversed(wanted):  # the conversation of the last one has those before it
        if item_id in known:
            continue
        n_conversations += 1
        if n_conversations > _MAX_CONVERSATIONS:
            raise ApiError(400, "input refers to items of too many conversations: send the items", param="input")
        known |= await _stored_items(service, tenant, item_id)
    return [known.get(item.id or "", item) if item.type == "item_reference" else item for item in items]


async def _stored_items(service: Service, tenant: str, item_id: str) -> dict[str, InputItem]:
    """By id, those of a conversation that has this one."""
    found = await service.in_thread(lambda: service.responses.items_with(tenant, item_id))
    items = {item.id: item for item in read_items(msgspec.json.decode(found or b"[]")) if item.id is not None}
    if item_id not in items:
        raise ApiError(
            400, f"input names the item {item_id!r:.100}, which was not stored or is forgotten by now: send the item",
            param="input", code="item_not_found",
        )  # fmt: skip
    return items


def _sampling(service: Service, body: ResponsesRequest) -> SamplingParams:
    given: dict[str, Any] = {name: value for name in _SAMPLING if (value := getattr(body, name)) is not None}
    given["max_tokens"] = max(1, length_limit(service.engine.max_model_len, body.max_output_tokens))
    if body.wants_logprobs:
        given["logprobs"] = body.top_logprobs or 0
    return sampling_params({**service.chat_defaults, **given})


def _task(service: Service, body: ResponsesRequest, wish: Wish, messages: Sequence[dict[str, Any]]) -> ChatTask:
    choice = body.tool_choice
    effort = body.reasoning.effort if body.reasoning is not None else None
    tools, called = function_tools(body.tools)
    return ChatTask(
        messages=messages,
        sampling=_sampling(service, body),
        wish=wish,
        structured=body.structured,
        structured_field="text.format",
        prompt_only=body.max_output_tokens == 0,
        tools=tools,
        tool_choice=chosen_function(choice.name, called) if isinstance(choice, NamedTool) else choice or "auto",
        parallel_tool_calls=body.parallel_tool_calls,
        add_generation_prompt=not body.is_continued,
        continue_final_message=body.is_continued,
        template_values=with_effort(service.template_text, body.chat_template_kwargs, effort, "reasoning.effort"),
        thinking_budget=usable_budget(
            body.thinking_budget, reasons=service.parsers.reasoning is not None, field="thinking_budget"
        ),
    )


def _response(body: ResponsesRequest, params: SamplingParams, response_id: str, model: str) -> out.ResponseAnswer:
    choice = body.tool_choice
    form = body.text.format if body.text is not None else None
    effort = body.reasoning.effort if body.reasoning is not None else None
    return out.ResponseAnswer(
        id=response_id,
        created_at=int(time.time()),
        model=model,
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        metadata={name: str(value) for name, value in (body.metadata or {}).items()},
        parallel_tool_calls=body.parallel_tool_calls,
        previous_response_id=body.previous_response_id,
        reasoning={"effort": effort, "summary": None},
        store=body.store,
        temperature=params.temperature,
        text={"format": {"type": "text"} if form is None else form.model_dump(by_alias=True, exclude_none=True)},
        tool_choice=choice.model_dump() if isinstance(choice, NamedTool) else choice or "auto",
        tools=[tool.model_dump() for tool in body.tools or ()],
        top_logprobs=body.top_logprobs or 0,
        top_p=params.top_p,
        user=body.user,
    )


@dataclass
class _Telling:
    """How one request is answered. items: of the conversation before it."""

    service: Service
    body: ResponsesRequest
    tenant: str
    items: Sequence[InputItem]
    response: out.ResponseAnswer

    def __post_init__(self) -> None:
        self._stream = ResponseStream(self.response, self._logprobs, function_tools(self.body.tools)[1])

    async def whole(self, answer: ChatAnswer) -> Response:
        async with aclosing(self._events(answer)) as steps:
            async for _ in steps:
                pass
        return json_response(self.response)

    async def pieces(self, answer: ChatAnswer) -> AsyncGenerator[bytes, None]:
        """One for each step."""
        yield _encoded(self._stream.start())
        try:
            async with aclosing(self._events(answer)) as steps:
                async for events in steps:
                    yield _encoded(events) if events is not None else sse.KEEP_ALIVE
            yield _encoded(self._stream.finished())
        except Exception as error:  # noqa: BLE001  the stream has begun: whatever it is, it is told there
            yield _encoded(self._stream.fail(as_api_error(error).message))

    async def _events(self, answer: ChatAnswer) -> AsyncGenerator[list[out.Event] | None, None]:
        """Those between the first and the last ones, by steps; None where nothing came for a while. Then it is kept."""
        async with aclosing(answer.steps()) as steps:
            async for step in steps:
                if not step:
                    yield None
                for said in step:
                    events = self._stream.add(said)
                    if said.finish_reason is not None:
                        events += self._stream.end(said.finish_reason, _usage(answer))
                    if events:
                        yield events
        if self.body.store:
            await self.service.in_thread(self._keep)

    def _keep(self) -> None:
        said = self.response.output
        items = [item.model_dump(exclude_none=True) for item in self.items] + said
        self.service.responses.put(
            self.tenant, self.response.id, msgspec.json.encode(self.response), msgspec.json.encode(items)
        )

    def _logprobs(self, said: Said) -> list[Any]:
        if not self.body.wants_logprobs:
            return []
        delta = said.delta
        scored = delta.logprobs[said.n_before : delta.n_visible]
        return self.service.token_views.chat_logprobs(scored, self.body.top_logprobs or 0)


def _encoded(events: Iterable[out.Event]) -> bytes:
    parts: list[bytes] = []
    for event in events:
        parts += (b"event: ", event.type.encode(), b"\n", sse.event(encode(event)))
    return b"".join(parts)


def _usage(answer: ChatAnswer) -> out.ResponseUsage:
    told = answer.answer
    prompt, generated = told.prompt_tokens, told.generated_tokens
    return out.ResponseUsage(
        prompt, generated, prompt + generated, out.InputDetails(told.cached_tokens),
        out.OutputDetails(answer.reasoning_tokens or 0),
    )  # fmt: skip
