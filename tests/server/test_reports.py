"""Inputs of public bug reports of other servers, in tables under reports/: each gets the right answer here."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from live_server import Live

TABLES = sorted((Path(__file__).parent / "reports").glob("*.toml"))
KEYS = frozenset((
    "source", "input", "right", "path", "method", "headers", "body", "status", "answer", "error", "ignored", "verdict",
))  # fmt: skip


def _reports() -> list[Any]:
    found = []
    for table in TABLES:
        content = tomllib.loads(table.read_text("utf-8"))
        for number, report in enumerate(content["report"], 1):
            assert report.keys() <= KEYS, (table.name, number, report.keys() - KEYS)
            found.append(pytest.param({"path": content["path"], **report}, id=f"{table.stem}-{number}"))
    return found


def value_at(answer: Any, path: str) -> Any:
    """`choices.0.message.content` in a decoded answer; None where there is no such place."""
    for part in path.split("."):
        if isinstance(answer, list):
            answer = answer[int(part)] if int(part) < len(answer) else None
        else:
            answer = answer.get(part) if isinstance(answer, dict) else None
    return answer


def final_event(text: str) -> Any:
    """Of a stream: its last event with data, so that a stream that broke off is seen."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return json.loads([item for item in data if item != "[DONE]"][-1])


@pytest.mark.parametrize("report", _reports())
def test_report(tiny: Live, report: dict[str, Any]) -> None:
    headers = {"content-type": "application/json", **report.get("headers", {})}
    method, body = report.get("method", "POST"), report.get("body")
    response = tiny.client.request(method, report["path"], content=body and body.encode(), headers=headers)
    context = (report["source"], report["input"], response.text[:500])
    assert response.status_code == report.get("status", 200), context
    is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
    answer = final_event(response.text) if is_stream else response.json() if response.content else None
    if response.is_success:
        assert not (isinstance(answer, dict) and answer.get("error")), context
    for path, right in report.get("answer", {}).items():
        found = value_at(answer, path)
        assert found not in (None, "", []) if right == "*" else found == right, (path, *context)
    if "error" in report:
        assert report["error"] in answer["error"]["message"], context
    ignored = response.headers.get("x-ignored-fields", "").split(", ")
    assert set(report.get("ignored", ())) <= set(ignored), (ignored, *context)
