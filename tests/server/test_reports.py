"""Inputs of public bug reports of other servers, in tables under reports/: each gets the right answer here."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import stream_rules
from live_server import Live

TABLES = sorted((Path(__file__).parent / "reports").glob("*.toml"))
KEYS = frozenset((
    "source", "input", "right", "path", "method", "headers", "body", "status", "answer", "stream", "pattern", "absent",
    "like", "same", "error", "ignored", "before", "events", "prompt", "verdict",
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
    """`choices.0.message.content` in a decoded answer; `#` is a length. None where there is no such place."""
    for part in path.split("."):
        if part == "#":
            answer = len(answer)
        elif isinstance(answer, list):
            answer = answer[int(part)] if int(part) < len(answer) else None
        else:
            answer = answer.get(part) if isinstance(answer, dict) else None
    return answer


def events_of(text: str) -> list[Any]:
    """Of a stream: what its events hold, without OpenAI's [DONE]."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(item) for item in data if item != "[DONE]"]


def joined(events: list[Any], path: str) -> Any:
    """What all events have at a path: texts as one, other values as a list. After it `[]`: items of lists as one list;
    `#`: a length."""
    if path.endswith(".#"):
        return len(joined(events, path.removesuffix(".#")))
    if path.endswith(".[]"):
        return [item for value in joined(events, path.removesuffix(".[]")) for item in value]
    found = [value for event in events if (value := value_at(event, path)) is not None]
    return "".join(found) if found and all(isinstance(value, str) for value in found) else found


def is_right(found: Any, right: Any) -> bool:
    """Whether a value is as a table says: `"*"` is anything but nothing; numbers are right to six digits."""
    if right == "*":
        return found not in (None, "", [])
    return bool(found == (pytest.approx(right, rel=1e-6) if isinstance(right, float) else right))


def after(greedy: Live, report: dict[str, Any], headers: dict[str, str]) -> str | None:
    """The body to send, with values of the answer to the body before it in place of `"$before.output.0.id"`."""
    body: str | None = report.get("body")
    if "before" not in report or body is None:
        return body
    response = greedy.client.post(report["path"], content=report["before"].encode(), headers=headers)
    assert response.is_success, (report["source"], response.text[:500])
    is_stream = response.headers["content-type"].startswith("text/event-stream")
    answer = events_of(response.text)[-1] if is_stream else response.json()
    return re.sub(r'"\$before\.([\w.]+)"', lambda found: json.dumps(value_at(answer, found[1])), body)


@pytest.fixture
def prompts(greedy: Live, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts of the prompts that the server makes of chats."""
    made: list[str] = []
    tokenizer = greedy.service.tokenizer
    encode = type(tokenizer).encode_chat

    def recording(self: Any, *arguments: Any, **options: Any) -> list[int]:
        ids = encode(self, *arguments, **options)
        made.append(self.decode(ids))
        return ids

    monkeypatch.setattr(type(tokenizer), "encode_chat", recording)
    return made


@pytest.mark.parametrize("report", _reports())
def test_report(greedy: Live, report: dict[str, Any], prompts: list[str]) -> None:
    headers = {"content-type": "application/json", **report.get("headers", {})}
    method, body = report.get("method", "POST"), after(greedy, report, headers)
    response = greedy.client.request(method, report["path"], content=body and body.encode(), headers=headers)
    context = (report["source"], report["input"], response.text[:500])
    assert response.status_code == report.get("status", 200), context
    is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
    events = events_of(response.text) if is_stream else []
    answer = events[-1] if is_stream else response.json() if response.content else None
    stream_rules.check(response.text, events)
    if response.is_success:
        assert not (isinstance(answer, dict) and answer.get("error")), context
    else:
        assert len(response.content) < 2000, context
    if "prompt" in report:
        assert prompts[-1] == report["prompt"], context
    if "events" in report:
        assert stream_rules.kinds(events) == report["events"], context
    for path, right in report.get("answer", {}).items():
        assert is_right(value_at(answer, path), right), (path, *context)
    for path, right in report.get("stream", {}).items():
        assert is_right(joined(events, path), right), (path, joined(events, path), *context)
    for path, pattern in report.get("pattern", {}).items():
        assert re.fullmatch(pattern, str(value_at(answer, path)), re.DOTALL), (path, *context)
    for path in report.get("absent", ()):
        assert value_at(answer, path) is None, (path, *context)
    if "like" in report:
        other = greedy.client.request(method, report["path"], content=report["like"].encode(), headers=headers)
        assert other.is_success, (other.text[:500], *context)
        same = report["same"]
        for path, there in (same if isinstance(same, dict) else dict(zip(same, same, strict=True))).items():
            assert value_at(answer, path) == value_at(other.json(), there) is not None, (path, other.text, *context)
    if "error" in report:
        assert report["error"] in answer["error"]["message"], context
    ignored = response.headers.get("x-ignored-fields", "").split(", ")
    assert set(report.get("ignored", ())) <= set(ignored), (ignored, *context)
