"""POST /v1/chat/completions."""

from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from deepseek.server import sse
from deepseek.server.chat import ChatAnswer, ChatTask, Said, begin_chat
from deepseek.server.errors import as_api_error, envelope_of
from deepseek.server.generation import Wish
from deepseek.server.protocol import answers as out
from deepseek.server.protocol.chat import ChatCompletionRequest, ChatMessage
from deepseek.server.routes.shared import json_response, serving, usage_of
from deepseek.server.service import Service, new_id

router = APIRouter(tags=["chat"])


@router.post("/v1/chat/completions")
async def chat_completions(body: ChatCompletionRequest, request: Request) -> Response:
    """Answer a chat."""
    service = serving(request)
    model = service.check_model(body.model)
    answer_id = new_id("chatcmpl", body.request_id)
    if not body.stream:
        return await sse.whole(request, _complete(service, body, model, answer_id))
    answer = await begin_chat(service, _task(service, body, answer_id))
    return sse.EventStream(_chunks(service, body, answer, model, answer_id))


def _task(service: Service, body: ChatCompletionRequest, answer_id: str) -> ChatTask:
    most = body.max_completion_tokens or body.max_tokens
    sampling = body.sampling({"max_tokens": service.engine.max_model_len}, **({"max_tokens": most} if most else {}))
    return ChatTask(
        messages=[_plain(message) for message in body.messages],
        sampling=sampling,
        structured=body.structured(),
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        template_values=body.chat_template_kwargs or {},
        wish=Wish(
            request_id=answer_id,
            priority=body.priority,
            cache_salt=body.cache_salt or "",
            experts="all" if body.routed_experts == "all" else "answer" if body.routed_experts else None,
        ),
    )


def _plain(message: ChatMessage) -> dict[str, Any]:
    return message.model_dump(exclude_none=True)


async def _complete(service: Service, body: ChatCompletionRequest, model: str, answer_id: str) -> Response:
    answer = await begin_chat(service, _task(service, body, answer_id))
    contents = [""] * answer.answer.params.n
    reasons = [""] * answer.answer.params.n
    async for step in answer.steps():
        for said in step:
            contents[said.delta.sample] += said.content
            if said.finish_reason is not None:
                reasons[said.delta.sample] = said.finish_reason
    choices = [
        out.ChatChoice(index, out.AnswerMessage(content), None, reason)
        for index, (content, reason) in enumerate(zip(contents, reasons, strict=True))
    ]
    return json_response(out.ChatCompletion(answer_id, service.created, model, choices, usage_of(answer.answer)))


async def _chunks(
    service: Service, body: ChatCompletionRequest, answer: ChatAnswer, model: str, answer_id: str
) -> AsyncGenerator[bytes, None]:
    """One piece for each step."""
    chunk = out.ChatChunk(answer_id, service.created, model, [])
    options = body.stream_options
    if options is not None and options.include_usage:
        chunk.usage = None
    try:
        for index in range(answer.answer.params.n):
            chunk.choices = [out.ChatChunkChoice(index, out.ChatDelta(role="assistant", content=""))]
            yield sse.event(out.encode(chunk))
        async for step in answer.steps():
            if not step:
                yield sse.KEEP_ALIVE
                continue
            chunk.choices = [_choice(said) for said in step]
            yield sse.event(out.encode(chunk))
        if options is not None and options.include_usage:
            chunk.choices, chunk.usage = [], usage_of(answer.answer)
            yield sse.event(out.encode(chunk))
    except Exception as error:  # noqa: BLE001  the stream has begun: the error is told in it
        yield sse.event(out.encode(envelope_of("/v1/chat")(as_api_error(error))))
    yield sse.DONE


def _choice(said: Said) -> out.ChatChunkChoice:
    delta = out.ChatDelta(content=said.content or None, reasoning_content=said.reasoning or None)
    return out.ChatChunkChoice(said.delta.sample, delta, None, said.finish_reason)
