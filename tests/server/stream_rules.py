"""What holds for every stream of `/v1/messages` and `/v1/responses`, whatever it says.

Clients add the events up: each block or item is opened once, filled while it is the only open one, and closed once.
"""

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

DELTA_BLOCKS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "thinking",
    "input_json_delta": "tool_use",
}
FINAL = {"response.completed": "completed", "response.incomplete": "incomplete", "response.failed": "failed"}


def kinds(events: Sequence[Any]) -> list[str]:
    """The types of events in order, each once where it is repeated."""
    return [kind for kind, _ in groupby(event["type"] for event in events if event["type"] != "ping")]


def check(text: str, events: Sequence[Any]) -> None:
    """text: the stream that the events are of. Streams of other APIs pass."""
    kind = events[0].get("type", "") if events else ""
    if kind == "message_start" or kind.startswith("response."):
        names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
        assert names == [event["type"] for event in events]
    if kind == "message_start":
        _check_message(events)
    elif kind.startswith("response."):
        _check_response(events)


def _check_message(events: Sequence[Any]) -> None:
    assert events[0]["message"]["content"] == []
    assert events[0]["message"]["stop_reason"] is None
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    start, end = events[0]["message"]["usage"], events[-2]["usage"]
    for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
        assert start[name] == end[name]
    _check_blocks([event for event in events[1:-2] if event["type"] != "ping"], events[-2]["delta"]["stop_reason"])


def _check_blocks(events: Sequence[Any], stop_reason: str) -> None:
    n_blocks, block, text = 0, "", ""
    called = False
    for event in events:
        if event["type"] == "content_block_start":
            assert not block
            assert event["index"] == n_blocks
            block, text = event["content_block"]["type"], ""
            called = called or block == "tool_use"
        elif event["type"] == "content_block_delta":
            assert event["index"] == n_blocks
            assert DELTA_BLOCKS[event["delta"]["type"]] == block
            text += event["delta"].get("partial_json", "")
        else:
            assert event["type"] == "content_block_stop"
            assert event["index"] == n_blocks
            if block == "tool_use" and stop_reason == "tool_use":
                assert isinstance(json.loads(text or "{}"), dict)
            block, n_blocks = "", n_blocks + 1
    assert not block
    assert called or stop_reason != "tool_use"


def _check_response(events: Sequence[Any]) -> None:
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    for event in events[:2]:
        assert event["response"]["status"] == "in_progress"
        assert event["response"]["output"] == []
    final = events[-1]["response"]
    assert final["status"] == FINAL[events[-1]["type"]]
    assert final["id"] == events[0]["response"]["id"]
    assert _items(events[2:-1]) == final["output"]


def _items(events: Sequence[Any]) -> list[Any]:
    """The items that the events add up to."""
    items: list[Any] = []
    opened: Any = None
    text = ""
    logprobs: list[Any] = []
    for event in events:
        assert event["output_index"] == len(items)
        if event["type"] == "response.output_item.added":
            assert opened is None
            opened, text, logprobs = event["item"], "", []
            assert opened["status"] == "in_progress"
        elif event["type"] == "response.output_item.done":
            item = event["item"]
            assert (item["id"], item["type"]) == (opened["id"], opened["type"])
            assert item.get("call_id") == opened.get("call_id")
            assert text == _text(item)
            assert logprobs == [one for part in item.get("content", ()) for one in part.get("logprobs", ())]
            items.append(item)
            opened = None
        else:
            assert event["item_id"] == opened["id"]
            if event["type"].endswith(".delta"):
                text += event["delta"]
                logprobs += event.get("logprobs", ())
    assert opened is None
    return items


def _text(item: Any) -> str:
    if "content" in item:
        return "".join(part["text"] for part in item["content"])
    return str(item.get("arguments", item.get("input")))
