"""`/v1/files`: what batches read and write. Each API key sees its own."""

from typing import Annotated, Any, Literal

from fastapi import Query
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from deepseek.server.access.keys import ApiKey
from deepseek.server.batches.desk import Desk, Store
from deepseek.server.batches.files import INPUT
from deepseek.server.errors import ApiError
from deepseek.server.gate import KEY
from deepseek.server.openapi_document import answers_object
from deepseek.server.protocol.batches import HOUR
from deepseek.server.protocol.ignored_fields import ignore_unknown
from deepseek.server.routes.shared import json_response, new_router, serving

router = new_router("files")
_MOST_NAME_LETTERS = 255
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"
_LEAST_SECONDS, _MOST_SECONDS = HOUR, 30 * 24 * HOUR
_FIELDS = {
    "file": {"type": "string", "format": "binary"},
    "purpose": {"enum": [INPUT]},
    _ANCHOR: {"enum": ["created_at"]},
    _SECONDS: {"type": "integer", "minimum": _LEAST_SECONDS, "maximum": _MOST_SECONDS},
}
_FORM = {"type": "object", "required": ["file", "purpose"], "additionalProperties": False, "properties": _FIELDS}
_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}}
_FILE = answers_object("file", id="string", bytes="integer", filename="string", purpose="string", created_at="integer")
PAGE = answers_object("list", data="array", has_more="boolean")


class FileContent(StreamingResponse):
    media_type = "application/octet-stream"


async def store_of(request: Request) -> Store:
    desk: Desk = request.app.state.desk
    return await desk.store()


def owner_of(request: Request) -> str:
    """Whose files and batches a request may see; "" where the server asks for no keys."""
    key: ApiKey | None = request.scope.get(KEY)
    return key.owner if key is not None else ""


@router.post("/v1/files", openapi_extra=_BODY, responses=_FILE)
async def upload(request: Request) -> Response:
    """Store a file. Its name is kept as a label only."""
    serving(request).check_open()
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(415, "send the file as multipart/form-data, with the fields file and purpose")
    async with request.form(max_files=1, max_fields=8) as form:
        file, seconds = _checked(form, serving(request).config.max_file_bytes)
        store = await store_of(request)
        stored = await store.files.add(owner_of(request), _label(file.filename), file.file, seconds=seconds)
    return json_response(stored.told())


def _checked(form: FormData, most_bytes: int) -> tuple[UploadFile, int | None]:
    """The file, and after how many seconds it expires."""
    for name in form:
        if name not in _FIELDS and ignore_unknown(name):
            continue
        if name not in _FIELDS or len(form.getlist(name)) > 1:
            what = "is given twice" if name in _FIELDS else "is not a known field: leave it out"
            raise ApiError(400, f"{name:.100} {what}", param=f"{name:.100}", code="unknown_field")
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise ApiError(400, "file must be given as a file, with a file name", param="file", code="missing_field")
    if form.get("purpose") != INPUT:
        raise ApiError(400, f"purpose must be {INPUT}", param="purpose", code="invalid_value")
    if file.size is not None and file.size > most_bytes:
        raise ApiError(413, f"file must be at most {most_bytes:,} bytes long (--max-file-bytes)", param="file")
    if not file.size:
        raise ApiError(400, "file must not be empty", param="file", code="invalid_value")
    return file, _expiry(form)


def _expiry(form: FormData) -> int | None:
    anchor, text = form.get(_ANCHOR), form.get(_SECONDS)
    if anchor is None and text is None:
        return None
    seconds = int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10 else 0
    if anchor != "created_at" or not _LEAST_SECONDS <= seconds <= _MOST_SECONDS:
        raise ApiError(
            400, f"expires_after must have the anchor created_at and {_LEAST_SECONDS} to {_MOST_SECONDS} seconds",
            param="expires_after", code="invalid_value",
        )  # fmt: skip
    return seconds


def _label(name: str | None) -> str:
    """The last part of what the client called it, on whatever system; printable."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:_MOST_NAME_LETTERS] or "file"


@router.get("/v1/files", responses=PAGE)
async def listed(
    request: Request,
    purpose: Annotated[Literal["batch", "batch_output"] | None, Query()] = None,
    after: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Annotated[Literal["asc", "desc"], Query()] = "desc",
) -> Response:
    """The files, newest first."""
    store = await store_of(request)
    files, has_more = await store.files.listed(
        owner_of(request), purpose=purpose, after=after, limit=limit, descending=order == "desc"
    )
    return page([file.told() for file in files], has_more=has_more)


@router.get("/v1/files/{file_id}", responses=_FILE)
async def one(file_id: str, request: Request) -> Response:
    """What is known of a file."""
    store = await store_of(request)
    return json_response((await store.files.get(owner_of(request), file_id)).told())


@router.get("/v1/files/{file_id}/content", response_class=FileContent)
async def content(file_id: str, request: Request) -> Response:
    """The file itself."""
    store = await store_of(request)
    file = await store.files.get(owner_of(request), file_id)
    headers = {"Content-Length": str(file.bytes), "Content-Disposition": "attachment"}
    return FileContent(store.files.content(file), headers=headers)


@router.delete("/v1/files/{file_id}")
async def delete(file_id: str, request: Request) -> Response:
    """Delete a file. A batch that has begun has read its file and goes on."""
    store = await store_of(request)
    await store.files.delete(owner_of(request), file_id)
    return json_response({"id": file_id, "object": "file", "deleted": True})


def page(data: list[dict[str, Any]], *, has_more: bool) -> Response:
    """A part of a list, in OpenAI's shape."""
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return json_response(
        {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more}
    )  # fmt: skip
