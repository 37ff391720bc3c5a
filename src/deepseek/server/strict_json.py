"""JSON of a request: bounded in depth before it is parsed, every name once, numbers finite.

Long bodies are parsed and validated off the event loop.
"""

import codecs
import contextvars
import functools
import json
import logging
import re
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from deepseek.server.errors import ApiError
from deepseek.server.gate import RECORD
from deepseek.server.protocol.ignored_fields import HEADER, IgnoredFields, collecting
from deepseek.server.protocol.refusals import refusal

IGNORED = "deepseek.ignored"
"""Where a request's IgnoredFields lie in its ASGI scope."""
_log = logging.getLogger("deepseek.server")
MOST_DEPTH = 64
MOST_ITEMS = 2_000_000  # brackets, commas and quotes: 10 MB of token ids
_LONG = 64 * 1024  # longer bodies are read in a thread

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))


class StrictRequest(Request):
    """A request whose JSON is read by `parse`, whatever Content-Type says: `curl -d` says that it is a form.

    No page of a stranger gains by that. Browsers send other types than JSON without asking first, but not without the
    page's Origin, which has been checked by then.
    """

    def __init__(self, scope: Scope, receive: Receive, route: APIRoute) -> None:
        super().__init__(scope, receive)
        self._route = route
        given = super().headers
        self._content_type = given.get("content-type", "")
        if not self._content_type.startswith("multipart/"):
            others = [header for header in given.raw if header[0] != b"content-type"]
            self._headers = Headers(raw=[*others, (b"content-type", b"application/json")])

    async def json(self) -> Any:
        """The body: a long one as the route's own model, which the framework passes on as it is."""
        data = await self.body()
        try:
            if len(data) < _LONG:
                return parse(data)
            work = functools.partial(contextvars.copy_context().run, self._validated, data)
            return await self.app.state.service.long_bodies.read(work)
        except ApiError as error:
            if error.code == "invalid_json" and "json" not in self._content_type:
                message = f"{error.message} (Content-Type says {self._content_type!r:.100})"
                raise ApiError(400, message, code=error.code) from None
            raise

    def _validated(self, data: bytes) -> Any:
        value, model, field = parse(data), body_model(self._route), self._route.body_field
        if model is None or field is None:
            return value
        validated, errors = field.validate(value, loc=("body",))
        if errors:
            raise refusal(errors, model)
        return validated


class StrictRoute(APIRoute):
    """For routers whose bodies are JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            fields = request.scope[IGNORED] = IgnoredFields(strict=request.app.state.service.config.strict)
            with collecting(fields):
                response = await handle(StrictRequest(request.scope, request.receive, self))
            report_ignored(request, response)
            return response

        return strict


def body_model(route: Any) -> type[BaseModel] | None:
    """What a route's body is read into."""
    field = getattr(route, "body_field", None)
    kind = getattr(getattr(field, "field_info", None), "annotation", None)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def report_ignored(request: Request, response: Response) -> None:
    """In the answer's header, the debug log and a counter: which fields of the request were ignored, if any were."""
    fields: IgnoredFields | None = request.scope.get(IGNORED)
    if fields is None or not fields.names:
        return
    response.headers[HEADER] = shown = fields.header()
    request.app.state.service.metrics.ignored(fields)
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug("request %s: ignored %s", request.scope[RECORD].request_id, shown)


def parse(data: bytes) -> Any:
    """Raises ApiError with status 400 saying what is wrong."""
    if data.startswith(b"\x1f\x8b"):
        raise _wrong("it is compressed with gzip: send the header Content-Encoding: gzip")
    data = data.removeprefix(codecs.BOM_UTF8)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:4]:
        raise _wrong("it is not encoded in UTF-8, but perhaps in UTF-16: send UTF-8")
    _check_bounds(data)
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite,
            parse_int=_whole,
        )  # fmt: skip
        if b"\\u" in data and _SURROGATE.search(data):  # the first is much faster, in texts that are long
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except ApiError:
        raise
    except UnicodeEncodeError:
        raise _wrong("it holds half a surrogate pair, which is not valid text") from None
    except UnicodeDecodeError as error:
        raise _wrong(f"byte {error.start} is not valid UTF-8") from None
    except json.JSONDecodeError as error:
        raise _wrong(f"{error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError) as error:
        raise _wrong(type(error).__name__) from None


def _wrong(what: str) -> ApiError:
    return ApiError(400, f"the body is not valid JSON: {what}", code="invalid_json")


def _check_bounds(data: bytes) -> None:
    items = sum(data.count(mark) for mark in (b'"', b",", b"{", b"["))
    if items > MOST_ITEMS:
        raise ApiError(413, f"the body has {items:,} JSON values and names, more than {MOST_ITEMS:,}: send less")
    if data.count(b"{") + data.count(b"[") <= MOST_DEPTH:
        return
    depth = deepest = 0
    for bracket in _STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"{[" else -1
        deepest = max(deepest, depth)
        if depth < 0:
            return  # what closes was never opened: the parser says where
        if deepest > MOST_DEPTH:
            raise ApiError(400, f"the body is nested deeper than {MOST_DEPTH}: flatten it", code="invalid_json")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _wrong(f"the name {_first_twice(pairs)!r:.200} occurs twice")
    return values


def _first_twice(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    raise AssertionError("no name occurs twice")


def _refuse(constant: str) -> NoReturn:
    raise _wrong(f"{constant} is not a JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _wrong(f"the number {digits[:40]} is too large")
    return value


def _whole(digits: str) -> int:
    if len(digits) > 40:
        raise _wrong(f"the number {digits[:40]}... is too long")
    return int(digits)
