"""What several families of routes need."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from deepseek.server.access.access_log import RequestRecord
from deepseek.server.access.keys import ApiKey
from deepseek.server.gate import KEY, PRIORITY, RECORD
from deepseek.server.generation import Answer, Wish
from deepseek.server.protocol import answers as out
from deepseek.server.protocol.fields import SamplingFields
from deepseek.server.service import Service
from deepseek.server.strict_json import StrictRoute


def new_router(tag: str) -> APIRouter:
    """For routes whose bodies are checked strictly."""
    return APIRouter(tags=[tag], route_class=StrictRoute)


def serving(request: Request) -> Service:
    """The service of the application that this request came to."""
    service: Service = request.app.state.service
    return service


def tenant_of(request: Request) -> str:
    """Of its API key; "" where all share."""
    key: ApiKey | None = request.scope.get(KEY)
    return key.tenant if key else ""


def wish_of(request: Request, body: SamplingFields, request_id: str) -> Wish:
    """What the request wants of the engine; cached prompts stay within its API key's tenant."""
    experts = "all" if body.routed_experts == "all" else "answer" if body.routed_experts else None
    return wish_for(request, request_id, priority=body.priority, cache_salt=body.cache_salt, experts=experts)


def wish_for(
    request: Request, request_id: str, *, priority: int = 0, cache_salt: str | None = None, experts: str | None = None
) -> Wish:
    """The same for routes with other fields."""
    record: RequestRecord = request.scope[RECORD]
    return Wish(
        request_id=request_id,
        record=record,
        priority=request.scope.get(PRIORITY, priority),
        cache_salt=f"{tenant_of(request)}\0{cache_salt or ''}",
        experts=experts,
        headers=request.headers,
    )


def json_response(value: Any, status: int = 200) -> Response:
    return Response(out.encode(value), status, media_type="application/json")


def usage_of(*answers: Answer, reasoning_tokens: int | None = None) -> out.Usage:
    """Of the answers to one request together."""
    prompt = sum(answer.prompt_tokens for answer in answers)
    generated = sum(answer.generated_tokens for answer in answers)
    cached = sum(answer.cached_tokens for answer in answers)
    return out.Usage(
        prompt, generated, prompt + generated, out.TokenDetails(cached_tokens=cached),
        out.TokenDetails(reasoning_tokens=reasoning_tokens),
    )  # fmt: skip


def text_prompt(service: Service, text: str, *, add_special_tokens: bool) -> list[int]:
    """Its tokens. An empty text becomes the token that stands before a text, or after one, as at OpenAI's."""
    tokenizer = service.tokenizer
    ids = service.within_context(tokenizer.encode, text, add_special_tokens=add_special_tokens)
    if ids or text:
        return ids
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return ids if start is None else [start]
