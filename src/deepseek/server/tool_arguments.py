"""Arguments of calls in a chat's history: whole ones, and what max_tokens left of them."""

import json
from typing import Any, NoReturn

from pydantic_core import from_json

_INPUT = "input"


def as_object(text: str) -> dict[str, Any]:
    """The object that a call's arguments are, for templates that print or walk through it.

    Arguments that were cut off are taken as far as they came: `{"city": "Par` is `{"city": "Par"}`. What is no object
    at all is kept as one argument, so that nothing that was said is lost.
    """
    if not text.strip():
        return {}
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        try:
            found = from_json(text, allow_partial="trailing-strings", allow_inf_nan=False)
        except ValueError:
            return {_INPUT: text}
    if found is None:
        return {}
    return found if isinstance(found, dict) else {_INPUT: found}


def custom_input(arguments: str) -> str:
    """The text in the arguments of a custom tool's call."""
    found = as_object(arguments).get(_INPUT, "")
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
