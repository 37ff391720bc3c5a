"""What `/openapi.json` says of answers, which routes build without FastAPI's models: tests hold it to the truth."""

from typing import Any

import msgspec
from fastapi import FastAPI

from deepseek.server.protocol.answers import ChatCompletion, Completion
from deepseek.server.protocol.embeddings import EmbeddingList
from deepseek.server.protocol.message_events import MessageAnswer
from deepseek.server.protocol.ranking import RankedText, Ranking, ScoreList
from deepseek.server.protocol.response_events import ResponseAnswer
from deepseek.server.protocol.training import RecordPage, TrainingRunFacts, TrainingRunList

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string"}, "event": {"type": "string"}},
}
"""One event of a stream. data: JSON, or [DONE] at the end of OpenAI's older streams."""
_REFERENCE = "#/components/schemas/{name}"
_STRUCTURES: tuple[type[msgspec.Struct], ...] = (
    ChatCompletion, Completion, MessageAnswer, ResponseAnswer, EmbeddingList, ScoreList, Ranking, RankedText,
    TrainingRunList, TrainingRunFacts, RecordPage,
)  # fmt: skip
REFUSED: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "Refused or failed; the message says what to mend.",
        "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(name="Error")}}},
    }
}
"""What every route may answer."""


def answers_with(
    structure: type[msgspec.Struct], *, streams: bool = False, or_list_of: type[msgspec.Struct] | None = None
) -> dict[int | str, dict[str, Any]]:
    """For `responses` of a route. streams: also as server-sent events. or_list_of: for another form of request."""
    schema: dict[str, Any] = {"$ref": _REFERENCE.format(name=structure.__name__)}
    if or_list_of is not None:
        items = {"$ref": _REFERENCE.format(name=or_list_of.__name__)}
        schema = {"anyOf": [schema, {"type": "array", "items": items}]}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if streams:
        content["text/event-stream"] = {"schema": _EVENT}
    return {200: {"content": content}}


def answers_object(kind: str, **properties: str) -> dict[int | str, dict[str, Any]]:
    """The same for an object that names its kind. properties: what it has besides, each with its JSON type."""
    described: dict[str, Any] = {"object": {"const": kind}, **{name: {"type": of} for name, of in properties.items()}}
    schema = {"type": "object", "required": list(described), "properties": described}
    return {200: {"content": {"application/json": {"schema": schema}}}}


def describe(app: FastAPI) -> None:
    """Let the application's document name the structures that its routes refer to."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        _, found = msgspec.json.schema_components(_STRUCTURES, ref_template=_REFERENCE)
        schemas.update(found, Error=_ERROR)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
