"""Makes a recording that can be committed: a few requests of each kind, short, without secrets or personal paths."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from recording_proxy import Exchange

MAX_BYTES = 19_500
MAX_REQUESTS = 16
TEXT_LENGTHS = (400, 200, 100, 50, 25)
TEXT_KEYS = {"text", "content", "description", "instructions", "system", "input", "prompt", "title", "output"}
"""Where long strings may be cut: everywhere else (patterns, arguments, images) a cut string means something else."""
LEFT_OUT_HEADERS = {"host", "connection", "content-length"}
DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def trimmed(exchanges: Iterable[Exchange], paths: Mapping[str, str]) -> list[dict[str, Any]]:
    """One request of each shape. paths: personal paths and what stands for them."""
    chosen: dict[str, dict[str, Any]] = {}
    for exchange in exchanges:
        chosen.setdefault(shape(exchange), _request(exchange))
    requests = list(chosen.values())[:MAX_REQUESTS]
    for length in TEXT_LENGTHS:
        short = [_replaced(_shortened(request, length), paths) for request in requests]
        if _size(short) <= MAX_BYTES:
            return short
    return _within(short)


def shape(exchange: Exchange) -> str:
    """What distinguishes requests for a server: route, fields, kinds of tools, of messages and of their parts."""
    body = exchange.body if isinstance(exchange.body, dict) else {}
    turns = body.get("messages", body.get("input"))
    parts = [exchange.method, exchange.path.split("?")[0], sorted(body), body.get("stream"), body.get("tool_choice")]
    parts += [_kinds(body.get("tools")), _kinds(turns)]
    return json.dumps(parts)


def _kinds(items: Any) -> list[str]:
    if not isinstance(items, list):
        return [type(items).__name__]
    kinds = set()
    for item in items:
        if not isinstance(item, dict):
            kinds.add(type(item).__name__)
            continue
        kinds.add(f"{item.get('type')} {item.get('role')} {sorted(item)}")
        if isinstance(item.get("content"), list):
            kinds |= {f"part {part.get('type')}" for part in item["content"] if isinstance(part, dict)}
    return sorted(kinds)


def _request(exchange: Exchange) -> dict[str, Any]:
    headers = {name: value for name, value in exchange.headers.items() if name not in LEFT_OUT_HEADERS}
    request: dict[str, Any] = {"method": exchange.method, "path": exchange.path, "headers": headers}
    return request if exchange.body is None else {**request, "body": exchange.body}


def _shortened(value: Any, length: int, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _shortened(item, length, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item, length, key) for item in value]
    if isinstance(value, str) and key in TEXT_KEYS and len(value) > length:
        return value[:length] + "..."
    return value


def _replaced(value: Any, paths: Mapping[str, str]) -> Any:
    text = json.dumps(value, ensure_ascii=False)
    for path, other in sorted(paths.items(), key=lambda item: -len(item[0])):
        text = text.replace(path, other)
    return json.loads(UUID.sub("00000000-0000-4000-8000-000000000000", DIGEST.sub("0" * 64, text)))


def _within(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With fewer tools of the same kind, most of them in the first request, then fewer requests, until they fit."""
    for most in (6, 3, 1):
        fewer = [_with_fewer_tools(request, 1 if place else most) for place, request in enumerate(requests)]
        if _size(fewer) <= MAX_BYTES:
            return fewer
    while len(fewer) > 1 and _size(fewer) > MAX_BYTES:
        del fewer[1 if len(fewer) > 2 else -1]  # the last one has the longest history
    return fewer


def _with_fewer_tools(request: dict[str, Any], most: int) -> dict[str, Any]:
    body = request.get("body")
    if not isinstance(body, dict) or not isinstance(body.get("tools"), list):
        return request
    return {**request, "body": {**body, "tools": _first_of_each_kind(body["tools"], most)}}


def _first_of_each_kind(tools: list[Any], most: int) -> list[Any]:
    seen: dict[str, int] = {}
    chosen = []
    for tool in tools:
        kind = _kinds([tool])[0]
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= most:
            within = tool.get("tools")  # of a namespace
            chosen.append({**tool, "tools": _first_of_each_kind(within, most)} if isinstance(within, list) else tool)
    return chosen


def _size(requests: list[dict[str, Any]]) -> int:
    return len(as_json(requests).encode())


def as_json(requests: list[dict[str, Any]]) -> str:
    return json.dumps(requests, indent=1, ensure_ascii=False) + "\n"
