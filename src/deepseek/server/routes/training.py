"""GET /v1/training/runs...: the records of training runs, for the studio."""

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from deepseek.server.errors import ApiError
from deepseek.server.openapi_document import answers_with
from deepseek.server.protocol.training import RecordName, RecordPage, TrainingRunFacts, TrainingRunList
from deepseek.server.routes.shared import json_response, new_router, serving
from deepseek.server.training_runs.json_lines import Thinning

router = new_router("training")
Found = TypeVar("Found")
_MOST = 1 << 53
Offset = Annotated[int, Query(ge=0, le=_MOST, description="Byte to go on from: next_offset of the answer before.")]
Every = Annotated[int, Query(ge=1, le=_MOST, description="Only every so many steps.")]


@router.get("/v1/training/runs", responses=answers_with(TrainingRunList))
async def runs(request: Request) -> Response:
    """All runs: those that go on first, then the newest."""
    service = serving(request)
    return json_response(await service.in_thread(service.training_runs.listed, slow=True))


@router.get("/v1/training/runs/{name}", responses=answers_with(TrainingRunFacts))
async def run(name: str, request: Request) -> Response:
    """One of them, with its recipe, its model and its machine."""
    return await _answer(request, name, lambda: serving(request).training_runs.facts(name))


@router.get("/v1/training/runs/{name}/log", responses=answers_with(RecordPage))
async def log(name: str, request: Request, offset: Offset = 0, every: Every = 1, loads_every: Every = 1) -> Response:
    """A record a step. every thins the steps, loads_every those with the load of each expert (`layers`)."""
    thinning = Thinning(every=every, loads_every=loads_every)
    return await _answer(request, name, lambda: serving(request).training_runs.records(name, "log", offset, thinning))


@router.get("/v1/training/runs/{name}/{records}", responses=answers_with(RecordPage))
async def records(name: str, records: RecordName, request: Request, offset: Offset = 0) -> Response:
    """Held-out losses, samples of text, or recall of needles."""
    return await _answer(request, name, lambda: serving(request).training_runs.records(name, records, offset))


async def _answer(request: Request, name: str, work: Callable[[], Found]) -> Response:
    try:
        return json_response(await serving(request).in_thread(work, slow=True))
    except KeyError:
        raise ApiError(
            404, f"there is no run {name!r:.200}; GET /v1/training/runs lists those that are there",
            param="name", code="run_not_found",
        ) from None  # fmt: skip
