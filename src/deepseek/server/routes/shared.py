"""What several families of routes need."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from deepseek.server.generation import Answer
from deepseek.server.protocol import answers as out
from deepseek.server.service import Service


def serving(request: Request) -> Service:
    """The service of the application that this request came to."""
    service: Service = request.app.state.service
    return service


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
