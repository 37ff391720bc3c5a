"""Streams of what real models wrote, whole or cut off anywhere, hold the rules of their API."""

import json
from typing import Any

import pytest

import stream_rules
from deepseek.server.chat import Said
from deepseek.server.generation import Delta
from deepseek.server.message_stream import MessageStream
from deepseek.server.parsing import Piece, make_parser
from deepseek.server.protocol import message_events, response_events
from deepseek.server.protocol.answers import encode
from deepseek.server.response_stream import ResponseStream
from recorded_outputs import RECORDED, Recorded

USAGE = message_events.MessageUsage(5, 7)


def _steps(recorded: Recorded, size: int, step: int) -> list[list[Piece]]:
    """What comes of the first so many characters, so many in each step."""
    parser = make_parser(
        recorded.reasoning_parser, recorded.tool_parser, thinking_open=recorded.thinking_open,
        declared=recorded.declared,
    )  # fmt: skip
    text = recorded.text[:size]
    return [parser.feed(text[start : start + step]) for start in range(0, size, step)] + [parser.finish()]


def _message_events(steps: list[list[Piece]]) -> list[Any]:
    stream = MessageStream(message_events.MessageAnswer("m", "tiny", USAGE, []))
    called = any(piece.tool_call for pieces in steps for piece in pieces)
    told = [json.loads(encode(event)) for event in stream.start(USAGE)]
    for pieces in steps:
        told += [json.loads(encode(event)) for event in stream.add(Said(Delta(0), pieces=pieces))]
    told += [json.loads(encode(event)) for event in stream.end("tool_use" if called else "end_turn", None, USAGE)]
    return told


def _response_events(steps: list[list[Piece]]) -> list[Any]:
    answer = response_events.ResponseAnswer(
        id="resp", created_at=0, model="tiny", instructions=None, max_output_tokens=None, metadata={},
        parallel_tool_calls=True, previous_response_id=None, reasoning={}, store=False, temperature=1.0, text={},
        tool_choice="auto", tools=[], top_logprobs=0, top_p=1.0, user=None,
    )  # fmt: skip
    stream = ResponseStream(answer)
    told = [json.loads(encode(event)) for event in stream.start()]
    for pieces in steps:
        told += [json.loads(encode(event)) for event in stream.add(Said(Delta(0), pieces=pieces))]
    usage = response_events.ResponseUsage(
        5, 7, 12, response_events.InputDetails(0), response_events.OutputDetails(0)
    )  # fmt: skip
    told += [json.loads(encode(event)) for event in stream.end("stop", usage)]
    return told + [json.loads(encode(event)) for event in stream.finished()]


@pytest.mark.parametrize("name", RECORDED)
def test_what_models_wrote(name: str) -> None:
    recorded = RECORDED[name]
    length = len(recorded.text)
    for size in sorted({*range(1, length, max(1, length // 7)), length}):
        for step in {1, 9, max(1, length)}:
            steps = _steps(recorded, size, step)
            for events in (_message_events(steps), _response_events(steps)):
                text = "".join(f"event: {event['type']}\n" for event in events)
                stream_rules.check(text, events)
