"""GET /v1/responses/{id}/input_items: what a stored response answered."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from deepseek.server.errors import ApiError
from deepseek.server.openapi_document import answers_object
from deepseek.server.routes.shared import json_response, new_router, serving, tenant_of

PATH = "/v1/responses"
router = new_router("responses")


@router.get(
    f"{PATH}/{{response_id}}/input_items",
    responses=answers_object("list", data="array", first_id="string", last_id="string", has_more="boolean"),
)
async def input_items(
    response_id: str,
    request: Request,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> Response:
    """The items of the conversation before a response, a page at a time; the newest first unless order is asc."""
    service, tenant = serving(request), tenant_of(request)
    response = await service.in_thread(lambda: service.responses.response(tenant, response_id))
    stored = await service.in_thread(lambda: service.responses.items(tenant, response_id))
    if response is None or stored is None:
        raise ApiError(404, f"there is no response {response_id!r:.100}: it was not stored, or is forgotten by now")
    answered = {item["id"] for item in msgspec.json.decode(response)["output"]}
    given = [item for item in msgspec.json.decode(stored) if item.get("id") not in answered]
    items = [_told(item, f"{response_id}_{place}") for place, item in enumerate(given)]
    if order == "desc":
        items.reverse()
    ids = [item["id"] for item in items]
    if after is not None and after not in ids:
        raise ApiError(400, f"after names {after!r:.100}, which is not an input item of this response", param="after")
    start = 0 if after is None else ids.index(after) + 1
    page = items[start : start + limit]
    return json_response(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else "",
            "last_id": page[-1]["id"] if page else "",
            "has_more": len(items) > start + limit,
        }
    )


@router.post(f"{PATH}/compact", include_in_schema=False)
async def compact() -> Response:
    """OpenAI's service shortens conversations with a model of its own."""
    raise ApiError(
        404, "conversations are not compacted here: send a shorter input, or summarize it with /v1/responses"
    )


def _told(item: dict[str, Any], item_id: str) -> dict[str, Any]:
    """An item as OpenAI lists it: each with an id, texts of messages as parts."""
    kind = item.get("type", "message")
    told = {**item, "id": item.get("id") or item_id, "type": kind}
    if kind == "message" and isinstance(item.get("content"), str):
        part: dict[str, Any] = {"type": "input_text", "text": item["content"]}
        if item.get("role") == "assistant":
            part = {"type": "output_text", "text": item["content"], "annotations": []}
        told["content"] = [part]
    return {"status": "completed", **told}
