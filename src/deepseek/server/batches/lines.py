"""What the file of a batch must hold: JSON lines of `{"custom_id", "method": "POST", "url", "body"}`."""

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from deepseek.server.batches.records import Line
from deepseek.server.errors import ApiError
from deepseek.server.strict_json import parse

_FIELDS = frozenset(("custom_id", "method", "url", "body"))
_MOST_ID_LETTERS = 512


@dataclass(frozen=True, kw_only=True)
class Rules:
    """endpoint: of every line; None: any of endpoints. models: that are served. most_bytes: of a line."""

    endpoint: str | None
    endpoints: Collection[str]
    models: Collection[str]
    most_lines: int
    most_bytes: int


class WrongLine(Exception):
    """number: of the line; None: the file as a whole is meant."""

    def __init__(self, number: int | None, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.number = number
        self.told = {"code": code, "message": message, "line": number, "param": param}


def split(chunks: Iterable[bytes], most_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers. Raises WrongLine for one without end."""
    number, held = 1, b""
    for chunk in chunks:
        *whole, held = (held + chunk).split(b"\n")
        for text in whole:
            yield from _unless_blank(number, text, most_bytes)
            number += 1
        if len(held) > most_bytes:
            break
    yield from _unless_blank(number, held, most_bytes)


def _unless_blank(number: int, text: bytes, most_bytes: int) -> Iterator[tuple[int, bytes]]:
    if len(text) > most_bytes:
        raise WrongLine(number, "line_too_long", f"the line is longer than {most_bytes:,} bytes")
    if text.strip():
        yield number, text


def read(number: int, text: bytes, rules: Rules) -> Line:
    """Raises WrongLine saying what is wrong. Whether the body makes sense is seen when the line's turn comes."""
    try:
        value = parse(text)
    except ApiError as error:
        raise WrongLine(number, "invalid_json_line", error.message.replace("the body", "the line", 1)) from None
    if not isinstance(value, dict):
        raise WrongLine(number, "invalid_json_line", "the line must be a JSON object")
    for name in sorted(value.keys() ^ _FIELDS):
        what = "is not a known field: leave it out" if name in value else "must be given"
        code = "unknown_field" if name in value else "missing_field"
        raise WrongLine(number, code, f"{name:.100} {what}", f"{name:.100}")
    for name, holds, meaning in _requirements(value, rules):
        if not holds:
            raise WrongLine(number, "invalid_value", f"{name} must be {meaning}", name)
    return Line(number, value["custom_id"], value["url"], json.dumps(value["body"]).encode())


def _requirements(value: dict[str, Any], rules: Rules) -> Iterator[tuple[str, bool, str]]:
    custom_id, url, body = value["custom_id"], value["url"], value["body"]
    yield (
        "custom_id",
        isinstance(custom_id, str) and 0 < len(custom_id) <= _MOST_ID_LETTERS and _is_text(custom_id),
        f"a text of 1 to {_MOST_ID_LETTERS} letters",
    )
    yield "method", value["method"] == "POST", "POST"
    offered = rules.endpoints if rules.endpoint is None else (rules.endpoint,)
    yield "url", isinstance(url, str) and url in offered, f"{' or '.join(offered)}, the batch's endpoint"
    yield "body", isinstance(body, dict), "a JSON object"
    yield "body.stream", not body.get("stream"), "false: a batch has nobody to stream to"
    model = body.get("model")
    yield "body.model", model is None or model in rules.models, f"a model that is served: {', '.join(rules.models)}"


def _is_text(text: str) -> bool:
    """Lone surrogates are none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
