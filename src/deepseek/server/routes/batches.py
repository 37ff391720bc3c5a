"""`/v1/batches`: many requests in a file, answered when nobody else needs the machine. Each API key sees its own."""

from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from deepseek.server.access.keys import ApiKey
from deepseek.server.batches.desk import Desk
from deepseek.server.errors import ApiError
from deepseek.server.gate import KEY
from deepseek.server.openapi_document import answers_object
from deepseek.server.protocol.batches import BatchRequest
from deepseek.server.routes.files import PAGE, owner_of, page, store_of
from deepseek.server.routes.shared import json_response, new_router, serving

router = new_router("batches")
_BATCH = answers_object("batch", id="string", status="string", request_counts="object", input_file_id="string")


@router.post("/v1/batches", responses=_BATCH)
async def create(body: BatchRequest, request: Request) -> Response:
    """Queue a file's requests. Their answers come in a file, in the order of the input; refused ones in another."""
    service = serving(request)
    service.check_open()
    desk: Desk = request.app.state.desk
    if body.endpoint not in desk.endpoints:
        raise ApiError(
            400, f"endpoint must be one of {', '.join(desk.endpoints)}", param="endpoint", code="invalid_value"
        )  # fmt: skip
    key: ApiKey | None = request.scope.get(KEY)
    store = await store_of(request)
    expiry = body.output_expires_after
    job = await store.jobs.create(
        owner_of(request), key_name=key.name if key is not None else None, endpoint=body.endpoint,
        model=desk.model, input_file_id=body.input_file_id, completion_window=body.completion_window,
        window_seconds=body.window_seconds, metadata=body.metadata,
        output_seconds=expiry.seconds if expiry is not None else None,
    )  # fmt: skip
    store.runner.wake()
    return json_response(job.told())


@router.get("/v1/batches", responses=PAGE)
async def listed(
    request: Request,
    after: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """The batches, newest first."""
    store = await store_of(request)
    jobs, has_more = await store.jobs.listed(owner_of(request), after=after, limit=limit)
    return page([job.told() for job in jobs], has_more=has_more)


@router.get("/v1/batches/{batch_id}", responses=_BATCH)
async def one(batch_id: str, request: Request) -> Response:
    """How far a batch is."""
    store = await store_of(request)
    return json_response((await store.jobs.get(owner_of(request), batch_id)).told())


@router.post("/v1/batches/{batch_id}/cancel", responses=_BATCH)
async def cancel(batch_id: str, request: Request) -> Response:
    """End a batch; what is answered already is kept."""
    store = await store_of(request)
    job = await store.jobs.cancel(owner_of(request), batch_id)
    store.runner.wake()
    return json_response(job.told())
