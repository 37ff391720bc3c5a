"""What agents send beside plain functions: a provider's tools, namespaces, tools with one text, calls of these."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from live_server import Live

ONE: dict[str, Any] = {
    "type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False,
}  # fmt: skip
SHELL: dict[str, Any] = {"type": "function", "name": "shell", "parameters": ONE, "strict": False}
NAMESPACE: dict[str, Any] = {"type": "namespace", "name": "mcp__x__", "description": "d", "tools": [SHELL]}
PATCH: dict[str, Any] = {"type": "custom", "name": "apply_patch", "description": "d"}
HOSTED: list[dict[str, Any]] = [
    {"type": "web_search", "external_web_access": False}, {"type": "local_shell"}, {"type": "tool_search"},
    {"type": "mcp", "server_label": "x", "server_url": "u"}, {"type": "image_generation"},
]  # fmt: skip


@pytest.fixture(scope="module")
def client(tiny: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{tiny.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def claude(tiny: Live) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=tiny.url, api_key="none", max_retries=0) as client:
        yield client


def respond(tiny: Live, **fields: Any) -> Any:
    answer = tiny.post("/v1/responses", {"input": "go", "seed": 1, "max_output_tokens": 200, **fields})
    assert answer.status_code == 200, answer.text
    return answer


def test_a_providers_tools_are_left_out_where_the_model_may_choose(tiny: Live) -> None:
    plain = respond(tiny, tools=[SHELL], max_output_tokens=1)
    offered = respond(tiny, tools=[*HOSTED, SHELL], tool_choice="auto", max_output_tokens=1)
    assert offered.json()["usage"]["input_tokens"] == plain.json()["usage"]["input_tokens"]
    listed = offered.headers["x-ignored-fields"].split(", ")
    assert listed == [f"tools[].{tool['type']}" for tool in HOSTED]


def test_a_call_of_a_namespaces_tool_names_both(tiny: Live) -> None:
    """As Codex CLI needs it: a joined name is a tool that it does not know."""
    (item,) = respond(tiny, tools=[NAMESPACE], tool_choice="required", parallel_tool_calls=False).json()["output"]
    assert (item["type"], item["name"], item["namespace"]) == ("function_call", "shell", "mcp__x__")
    assert json.loads(item["arguments"])["n"] in (1, 2)
    plain = respond(tiny, tools=[SHELL], tool_choice={"type": "function", "name": "shell"}).json()["output"][0]
    assert "namespace" not in plain


def test_tools_of_one_name_in_two_namespaces_are_two(tiny: Live) -> None:
    both = respond(tiny, tools=[SHELL, NAMESPACE], max_output_tokens=1).json()["usage"]["input_tokens"]
    one = respond(tiny, tools=[SHELL], max_output_tokens=1).json()["usage"]["input_tokens"]
    assert both > one
    history = [
        {"role": "user", "content": "go"},
        {"type": "function_call", "call_id": "c", "name": "shell", "namespace": "mcp__x__", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "ok"},
    ]
    other = [history[0], {**history[1], "namespace": None}, history[2]]
    sent, shorter = (
        respond(tiny, input=one, max_output_tokens=1).json()["usage"]["input_tokens"] for one in (history, other)
    )
    assert sent == shorter + len("mcp__x__")


def test_a_custom_tool_is_called_with_one_text(client: openai.OpenAI, tiny: Live) -> None:
    fields: Any = {"tools": [PATCH], "tool_choice": {"type": "custom", "name": "apply_patch"}}
    (item,) = respond(tiny, **fields).json()["output"]
    assert (item["type"], item["name"]) == ("custom_tool_call", "apply_patch")
    stream = client.responses.create(
        model="tiny", input="go", stream=True, max_output_tokens=200, extra_body={"seed": 1}, **fields
    )
    events = list(stream)
    deltas = [event.delta for event in events if event.type == "response.custom_tool_call_input.delta"]
    assert "".join(deltas) == item["input"]
    assert [event.input for event in events if event.type == "response.custom_tool_call_input.done"] == [item["input"]]
    history = [{"role": "user", "content": "go"}, item,
               {"type": "custom_tool_call_output", "call_id": item["call_id"], "output": "Done"}]  # fmt: skip
    assert respond(tiny, input=history, max_output_tokens=1).status_code == 200


def test_only_allowed_tools_are_offered(tiny: Live) -> None:
    time = {**SHELL, "name": "time"}
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "time"}]}
    output = respond(tiny, tools=[SHELL, time], tool_choice=choice).json()["output"]
    assert {item["name"] for item in output} == {"time"}


def test_items_without_text_are_left_out_and_calls_of_the_clients_own_tools_are_kept(tiny: Live) -> None:
    plain: list[Any] = [
        {"role": "user", "content": "go"},
        {"type": "function_call", "call_id": "c", "name": "local_shell", "arguments": '{"command": ["ls"]}'},
        {"type": "function_call_output", "call_id": "c", "output": "a b"},
    ]
    more: list[Any] = [
        {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "x", "content": None},
        {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search", "query": "x"}},
        {"type": "compaction", "encrypted_content": "x"},
        {"type": "local_shell_call", "call_id": "c", "status": "completed", "action": {"command": ["ls"]}},
        {"type": "local_shell_call_output", "call_id": "c", "output": "a b"},
    ]
    short = respond(tiny, input=plain, max_output_tokens=1)
    full = respond(tiny, input=[plain[0], *more], max_output_tokens=1)
    assert full.json()["usage"]["input_tokens"] == short.json()["usage"]["input_tokens"]
    listed = set(full.headers["x-ignored-fields"].split(", "))
    assert listed == {"input[].web_search_call", "input[].compaction", "input[].encrypted_content"}


def test_what_an_unknown_item_says_is_read(tiny: Live) -> None:
    def tokens(*items: Any) -> Any:
        return respond(tiny, input=list(items), max_output_tokens=1).json()["usage"]["input_tokens"]

    said = {"type": "agent_message", "author": "x", "content": [{"type": "input_text", "text": "hello"}]}
    assert tokens(said) == tokens({"role": "user", "content": "hello"})
    call = {"type": "mcp_call", "id": "c", "name": "look", "server_label": "x", "arguments": "{}", "output": "found"}
    assert tokens(call) == tokens(
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "found"},
    )


def test_a_forced_call_wins_over_a_format(tiny: Live) -> None:
    form = {"type": "json_schema", "name": "P", "schema": {"type": "object"}}
    answer = respond(
        tiny, text={"format": form}, tools=[SHELL], tool_choice={"type": "function", "name": "shell"}
    )  # fmt: skip
    assert answer.json()["output"][0]["type"] == "function_call"
    assert answer.headers["x-ignored-fields"] == "text.format"


def test_an_empty_input(tiny: Live) -> None:
    assert respond(tiny, input=[], max_output_tokens=1).json()["usage"]["output_tokens"] == 1
    assert respond(tiny, input=[], instructions="Be brief.", max_output_tokens=1).status_code == 200


CLAUDE_CODE: dict[str, Any] = {
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "high"},
    "thinking": {"type": "adaptive"},
    "metadata": {"user_id": "u"},
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "tools": [
        {"name": "f", "input_schema": ONE, "defer_loading": True, "allowed_callers": ["direct"],
         "input_examples": [{"n": 1}], "eager_input_streaming": True, "cache_control": {"type": "ephemeral"}},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
    ],
    "inference_geo": None, "container": None, "service_tier": "auto",
}  # fmt: skip


def test_the_body_of_claude_code(tiny: Live, smollm2: Live) -> None:
    for server in (tiny, smollm2):
        answer = server.post("/v1/messages?beta=true", {
            "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}], **CLAUDE_CODE,
        })  # fmt: skip
        assert answer.status_code == 200, answer.text
        listed = answer.headers["x-ignored-fields"].split(", ")
        assert {"context_management", "tools[].defer_loading", "tools[].web_search_20250305"} <= set(listed)


def test_what_a_providers_tools_did_is_left_out_of_the_history(claude: anthropic.Anthropic) -> None:
    blocks: list[Any] = [
        {"type": "redacted_thinking", "data": "x"},
        {"type": "thinking", "signature": "x"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "text", "text": "ok", "citations": [{"type": "web_search_result_location", "url": "u"}]},
    ]

    def tokens(content: Any) -> int:
        user: Any = {"role": "user", "content": "w?"}
        history: Any = [user, {"role": "assistant", "content": content}, user]
        return claude.messages.count_tokens(model="tiny", messages=history).input_tokens

    assert tokens(blocks) == tokens("ok")


def test_a_document_of_text_is_read(claude: anthropic.Anthropic) -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "The sky is green."}

    def tokens(content: Any) -> int:
        return claude.messages.count_tokens(model="tiny", messages=[{"role": "user", "content": content}]).input_tokens

    assert tokens([{"type": "document", "source": source}]) == tokens("The sky is green.")
    assert tokens([{"type": "document", "title": "Sky", "source": source}]) == tokens("Sky\nThe sky is green.")


def test_the_tool_runner_of_the_sdk(claude: anthropic.Anthropic) -> None:
    """It asks for a thread, and sends the whole history where there is none."""

    @anthropic.beta_tool
    def f(n: int) -> str:
        """Count.

        Args:
            n: how far.
        """
        return str(n)

    runner = claude.beta.messages.tool_runner(
        model="tiny", max_tokens=200, tools=[f], messages=[{"role": "user", "content": "go"}], max_iterations=2,
        tool_choice={"type": "tool", "name": "f"}, extra_body={"seed": 2, "temperature": 0.3},
    )  # fmt: skip
    answers = list(runner)
    assert 1 <= len(answers) <= 2
    assert all(answer.content[0].type == "tool_use" for answer in answers if answer.content)


def test_to_continue_a_thread_is_answered_so_that_the_sdk_sends_the_history(tiny: Live) -> None:
    answer = tiny.post("/v1/messages", {
        "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}],
        "thread": {"type": "continue", "previous_message_id": "msg_1"},
    })  # fmt: skip
    assert answer.status_code == 400
    assert answer.json()["error"]["details"] == {"error_code": "thread_not_found"}
