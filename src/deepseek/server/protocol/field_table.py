"""What becomes of every request field that this server knows, read from the classes that take them."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from deepseek.server.protocol.batches import BatchRequest
from deepseek.server.protocol.chat import ChatCompletionRequest
from deepseek.server.protocol.completions import CompletionRequest
from deepseek.server.protocol.embeddings import EmbeddingRequest
from deepseek.server.protocol.messages import CountTokensRequest, MessagesRequest
from deepseek.server.protocol.ranking import RerankRequest, ScoreRequest
from deepseek.server.protocol.responses import ResponsesRequest
from deepseek.server.protocol.tokens import ApplyTemplateRequest, DetokenizeRequest, TokenizeRequest
from deepseek.server.protocol.tolerance import RequestBody, RequestModel

BODIES: dict[str, type[RequestBody]] = {
    "/v1/chat/completions": ChatCompletionRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponsesRequest,
    "/v1/messages": MessagesRequest,
    "/v1/messages/count_tokens": CountTokensRequest,
    "/v1/embeddings": EmbeddingRequest,
    "/v1/rerank": RerankRequest,
    "/v1/score": ScoreRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
    "/apply-template": ApplyTemplateRequest,
    "/v1/batches": BatchRequest,
}
IMPLEMENTED = "implemented"


def request_fields() -> dict[str, dict[str, str]]:
    """By route, then by path such as `messages[].content[].cache_control`: `implemented`, `alias of X`, `read as X`,
    `ignored: why` or `refused: how to fix it`."""
    return {route: dict(_fields(body, "")) for route, body in BODIES.items()}


def _fields(model: type[RequestModel], path: str) -> Iterator[tuple[str, str]]:
    shape = model.shape
    for info_name, info in model.model_fields.items():
        name = info.alias or info_name
        yield path + name, IMPLEMENTED
        if name in shape.nested:
            yield from _fields(shape.nested[name], f"{path}{name}{'[]' if _is_list(info.annotation) else ''}.")
    others = {
        **{name: f"ignored: {why}" for name, why in shape.ignored.items()},
        **{name: f"refused: {one.fix}" for name, one in shape.refused.items()},
        **{name: f"alias of {path}{target}" for name, target in shape.aliases.items() if target in shape.names},
        **{name: f"read as {meaning}" for name, meaning in shape.adapted.items()},
    }
    for name, what in others.items():
        if name not in shape.names:
            yield path + name, what


def _is_list(annotation: Any) -> bool:
    """Whether the objects of a field come in a list."""
    if get_origin(annotation) is list:
        return any(isinstance(one, type) and issubclass(one, RequestModel) for one in _leaves(annotation))
    return any(_is_list(one) for one in get_args(annotation))


def _leaves(annotation: Any) -> list[Any]:
    inner = get_args(annotation)
    return [leaf for one in inner for leaf in _leaves(one)] if inner else [annotation]
