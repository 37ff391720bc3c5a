"""GET / and /studio/...: the web page."""

from starlette.requests import Request
from starlette.responses import Response

from deepseek.server.errors import ApiError
from deepseek.server.routes.shared import new_router, serving
from deepseek.server.studio.files import StudioFile, studio_file

router = new_router("studio")


@router.get("/", include_in_schema=False)
async def page(request: Request) -> Response:
    """The studio, or where it is switched off, what this is."""
    if not serving(request).config.studio:
        return Response("deepseek: the API is at /v1, its description at /openapi.json\n", media_type="text/plain")
    return _told(request, studio_file("index.html"))


@router.get("/studio/{name:path}", include_in_schema=False)
async def file(name: str, request: Request) -> Response:
    """One of its files."""
    return _told(request, studio_file(name) if serving(request).config.studio else None)


def _told(request: Request, found: StudioFile | None) -> Response:
    if found is None:
        raise ApiError(404, "the studio has no such file")
    headers = {**found.headers, "ETag": found.etag}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.body, headers=headers, media_type=found.media_type)
