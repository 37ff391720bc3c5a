"""What Pydantic finds wrong with a request, as one sentence that names the field and the mend."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from deepseek.server.errors import ApiError

_BRANCH = re.compile(r"(str|int|float|bool|(list|dict|tuple|literal|function-\w+|constrained-\w+)\[?.*|[A-Z]\w*)$")


def refusal(errors: Sequence[Mapping[str, Any]], model: type[BaseModel] | None = None) -> ApiError:
    """errors: of a ValidationError, at least one. model: whose fields may have been meant by an unknown one."""
    error = max(errors, key=lambda each: (len(each["loc"]), each["type"] != "string_type"))
    path = _path(error["loc"])
    name = str(error["loc"][-1]) if error["loc"] else ""
    if "place" in error.get("ctx", {}):  # of the rewrite
        return ApiError(400, error["msg"][:500], param=error["ctx"]["place"][:200], code=error["type"])
    if error["type"] == "extra_forbidden":
        return ApiError(400, _unknown(path, name, model), param=path, code="unknown_field")
    if not path:
        if error["type"] in ("missing", "model_attributes_type", "model_type"):
            return ApiError(400, "the body must be a JSON object (application/json); it is empty or something else")
        return ApiError(400, _sentence(error["msg"]))
    if error["type"] == "missing":
        return ApiError(400, f"{path} must be given", param=path, code="missing_field")
    return ApiError(400, f"{path}: {_sentence(error['msg'])}", param=path, code="invalid_value")


def _path(location: Sequence[Any]) -> str:
    """`messages.0.content`: without the branches of unions that Pydantic tried."""
    parts = list(location[1:] if location[:1] == ("body",) else location)
    kept = [str(part) for part in parts if isinstance(part, int) or not _BRANCH.match(part)]
    return ".".join(kept)[:200]


def _unknown(path: str, name: str, model: type[BaseModel] | None) -> str:
    known = list(model.model_fields) if model is not None and path == name else []
    close = difflib.get_close_matches(name, known, 1)
    return f"{path} is not a known field: {f'did you mean {close[0]}?' if close else 'leave it out'}"


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ")[:500]
