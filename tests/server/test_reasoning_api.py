"""Reasoning before an answer, with a tiny random model whose template can open it."""

import json
from typing import Any

import pytest

from live_server import Live, events

THINK: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": True}, "temperature": 0}


def message(server: Live, **fields: Any) -> Any:
    response = server.chat("hello", **{**THINK, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def test_a_budget_ends_the_reasoning(tiny: Live) -> None:
    answer = message(tiny, thinking_budget=7, max_tokens=20, ignore_eos=True)
    told = answer["choices"][0]["message"]
    assert told["reasoning_content"]
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] <= 8
    unlimited = message(tiny, max_tokens=20, ignore_eos=True)["choices"][0]["message"]
    assert unlimited["reasoning_content"].startswith(told["reasoning_content"])
    assert unlimited["content"] == ""


def test_reasoning_is_free_and_the_answer_has_its_form(tiny: Live) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    answer = message(tiny, response_format=form, thinking_budget=5, max_tokens=60)["choices"][0]
    assert json.loads(answer["message"]["content"])["n"] in (1, 2)
    assert answer["message"]["reasoning_content"]


def test_calls_after_reasoning(tiny: Live) -> None:
    parameters = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"],
                  "additionalProperties": False}  # fmt: skip
    fields: dict[str, Any] = {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}],
        "tool_choice": "required", "parallel_tool_calls": False, "thinking_budget": 5, "max_tokens": 400,
    }  # fmt: skip
    choice = message(tiny, **fields)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])["n"] in (1, 2)
    streamed = events(tiny.chat("hello", **THINK, **fields, stream=True))
    deltas = [choice["delta"] for chunk in streamed for choice in chunk["choices"]]
    reasoning = "".join(delta.get("reasoning_content", "") for delta in deltas)
    assert reasoning == choice["message"]["reasoning_content"]


def test_reasoning_may_be_left_out(tiny: Live) -> None:
    told = message(tiny, thinking_budget=3, max_tokens=9, include_reasoning=False)["choices"][0]["message"]
    assert "reasoning_content" not in told


def test_internals_are_the_servers(tiny: Live) -> None:
    for name in ("messages", "add_generation_prompt", "bos_token", "range", "trust_content"):
        response = tiny.chat("hello", chat_template_kwargs={name: "x"})
        assert response.status_code == 400
        assert name in response.json()["error"]["message"]


def test_effort_none_turns_reasoning_off(tiny: Live) -> None:
    assert (
        "reasoning_content"
        not in tiny.chat("hello", reasoning_effort="none", max_tokens=4).json()["choices"][0]["message"]
    )


@pytest.mark.parametrize(
    "hint",
    [{"reasoning_effort": "none"}, {"reasoning_effort": "medium"}, {"enable_thinking": False},
     {"thinking_budget": 5}, {"thinking": {"type": "enabled", "budget_tokens": 5}}, {"think": "high"},
     {"reasoning": {"effort": "low", "max_tokens": 9, "exclude": True}}],
)  # fmt: skip
def test_a_hint_to_a_model_that_does_not_reason_changes_nothing(smollm2: Live, hint: dict[str, Any]) -> None:
    plain = smollm2.chat("hello", temperature=0, max_tokens=4)
    hinted = smollm2.chat("hello", temperature=0, max_tokens=4, **hint)
    assert hinted.json()["choices"] == plain.json()["choices"]
    assert hinted.headers["x-ignored-fields"]


def test_reasoning_is_turned_on_and_off_by_every_servers_field(tiny: Live) -> None:
    for field in ({"enable_thinking": True}, {"thinking": {"type": "enabled"}}, {"think": True},
                  {"reasoning": {"enabled": True}}):  # fmt: skip
        assert "reasoning_content" in tiny.chat("hello", max_tokens=4, **field).json()["choices"][0]["message"]
    for field in ({"enable_thinking": False}, {"thinking": {"type": "disabled"}}):
        assert "reasoning_content" not in tiny.chat("hello", max_tokens=4, **field).json()["choices"][0]["message"]
