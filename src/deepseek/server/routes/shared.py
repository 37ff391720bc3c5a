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


def wish_of(request: Request, body: SamplingFields, request_id: str) -> Wish:
    """What the request wants of the engine; cached prompts stay within its API key's tenant."""
    record: RequestRecord = request.scope[RECORD]
    key: ApiKey | None = request.scope.get(KEY)
    experts = body.routed_experts
    return Wish(
        request_id=request_id,
        record=record,
        priority=request.scope.get(PRIORITY, body.priority),
        cache_salt=f"{key.tenant if key else ''}\0{body.cache_salt or ''}",
        experts="all" if experts == "all" else "answer" if experts else None,
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
