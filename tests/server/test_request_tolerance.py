"""The rule for request bodies: what changes nothing is ignored and listed, what would change the answer is refused."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from deepseek.server.protocol.chat import ChatCompletionRequest
from deepseek.server.protocol.completions import CompletionRequest
from deepseek.server.protocol.embeddings import EmbeddingRequest
from deepseek.server.protocol.fields import SamplingFields, sampling_params
from deepseek.server.protocol.ignored_fields import MAX_FIELDS, MAX_HEADER_CHARACTERS, IgnoredFields, collecting
from deepseek.server.protocol.messages import MessagesRequest
from deepseek.server.protocol.peer_fields import SAMPLING_REFUSED
from deepseek.server.protocol.refusals import refusal
from deepseek.server.protocol.responses import ResponsesRequest
from deepseek.server.protocol.tolerance import RequestBody
from live_server import Live, live, tiny_engine

HI: list[Any] = [{"role": "user", "content": "hi"}]
MINIMAL: list[tuple[type[RequestBody], dict[str, Any]]] = [
    (ChatCompletionRequest, {"messages": HI}),
    (CompletionRequest, {"prompt": "hi"}),
    (ResponsesRequest, {"input": "hi"}),
    (MessagesRequest, {"messages": HI, "max_tokens": 4}),
    (EmbeddingRequest, {"input": "hi"}),
]


def read(model: type[BaseModel], body: dict[str, Any], *, strict: bool = False) -> tuple[Any, list[str]]:
    """The request as the server understands it, and what it ignores of it."""
    ignored = IgnoredFields(strict=strict)
    with collecting(ignored):
        return model.model_validate(body), ignored.names


def chat(**fields: Any) -> tuple[ChatCompletionRequest, list[str]]:
    return read(ChatCompletionRequest, {"messages": HI, **fields})


@pytest.mark.parametrize(("model", "body"), MINIMAL)
def test_null_is_the_same_as_left_out(model: type[BaseModel], body: dict[str, Any]) -> None:
    every = {info.alias or name: None for name, info in model.model_fields.items()}
    more = dict.fromkeys(("audio", "functions", "conversation", "never_heard_of"))
    assert read(model, {**every, **more, **body}) == (model.model_validate(body), [])


@pytest.mark.parametrize(("model", "body"), MINIMAL)
def test_an_unknown_field_is_ignored_listed_and_refused_by_a_strict_server(
    model: type[BaseModel], body: dict[str, Any]
) -> None:
    odd = {**body, "never_heard_of": {"a": [1]}}
    assert read(model, odd) == (model.model_validate(body), ["never_heard_of"])
    with pytest.raises(ValidationError) as refused:
        read(model, odd, strict=True)
    assert refused.value.errors()[0]["type"] == "extra_forbidden"


def test_a_misspelled_field_is_ignored_and_listed_and_a_strict_server_says_what_was_meant() -> None:
    assert chat(temprature=0.1)[1] == ["temprature"]
    with pytest.raises(ValidationError) as refused:
        read(ChatCompletionRequest, {"messages": HI, "temprature": 0.1}, strict=True)
    error = refusal(refused.value.errors(), ChatCompletionRequest)
    assert error.message == "temprature is not a known field: did you mean temperature?"


def test_known_fields_that_change_nothing_pass_a_strict_server_too() -> None:
    body = {"messages": HI, "store": True, "service_tier": "flex", "metadata": {"a": "b"}}
    assert read(ChatCompletionRequest, body, strict=True)[1] == ["store", "service_tier", "metadata"]


def test_what_is_ignored_within_is_listed_with_its_path() -> None:
    part = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    tool = {"type": "function", "function": {"name": "f", "odd": 1}, "cache_control": {}}
    _, ignored = chat(messages=[{"role": "user", "content": [part, part]}] * 2, tools=[tool])
    assert ignored == ["messages[].content[].cache_control", "tools[].function.odd", "tools[].cache_control"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"repeat_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"rep_pen": 1.1, "repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"n_predict": 5}, {"max_tokens": 5}),
        ({"num_predict": 5, "max_tokens": 7}, {"max_tokens": 5}),
        ({"max_new_tokens": -1, "max_tokens": 7}, {"max_tokens": 7}),
        ({"typical": 0.9}, {"typical_p": 0.9}),
        ({"random_seed": 3}, {"seed": 3}),
        ({"stopping_strings": ["a"]}, {"stop": ["a"]}),
        ({"do_sample": False, "temperature": 0.7}, {"temperature": 0}),
        ({"regex": "a+"}, {"guided_regex": "a+"}),
        ({"n_probs": 3}, {"logprobs": True, "top_logprobs": 3}),
        ({"logprobs": 3, "n_probs": 0}, {"logprobs": True, "top_logprobs": 3}),
        ({"logprobs": 0, "n_probs": 0}, {}),
        ({"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
        ({"tool_choice": "auto"}, {}),
        ({"tool_choice": "none"}, {}),
        ({"max_tokens": 100.0, "temperature": "0.5", "stream": "true", "ignore_eos": 1},
         {"max_tokens": 100, "temperature": 0.5, "stream": True, "ignore_eos": True}),
        ({"logit_bias": [[5, -1.5], [6, False]]}, {"logit_bias": {"5": -1.5, "6": -100.0}}),
    ],
)  # fmt: skip
def test_other_servers_names_and_spellings(given: dict[str, Any], meant: dict[str, Any]) -> None:
    body, ignored = chat(**given)
    wanted, _ = chat(**meant)
    assert body.model_dump() == wanted.model_dump()
    assert ignored == []


def test_an_empty_second_name_says_nothing() -> None:
    body, ignored = chat(stop=["a"], stopping_strings=[], grammar="", guided_grammar="x")
    assert (body.stop, body.guided_grammar) == (["a"], "x")
    assert ignored == ["stopping_strings", "grammar"]


def test_two_names_of_one_field_must_agree() -> None:
    with pytest.raises(ValidationError, match="repeat_penalty means the same as repetition_penalty, but their values"):
        chat(repeat_penalty=1.1, repetition_penalty=1.2)


NEUTRAL: dict[str, Any] = {
    "use_beam_search": False, "best_of": 1, "num_beams": 1, "mirostat": 0, "mirostat_mode": 0, "dry_multiplier": 0,
    "xtc_probability": 0.0, "top_n_sigma": -1, "nsigma": 0, "top_a": 0, "tfs": 1, "tfs_z": 1.0, "dynatemp_range": 0,
    "smoothing_factor": 0, "guidance_scale": 1, "negative_prompt": "", "no_repeat_ngram_size": 0, "lora": [],
    "encoder_repetition_penalty": 1, "epsilon_cutoff": 0, "eta_cutoff": 0, "penalty_alpha": 0,
    "modalities": ["text"], "prompt_logprobs": False, "truncate_prompt_tokens": -1, "logits_processors": [],
    "custom_token_bans": "", "banned_strings": [], "safe_prompt": False, "adaptive_target": -1.0, "documents": [],
}  # fmt: skip
EFFECTIVE: dict[str, Any] = {
    "use_beam_search": True, "best_of": 4, "num_beams": 4, "mirostat": 2, "mirostat_mode": 2, "dry_multiplier": 0.8,
    "xtc_probability": 0.5, "top_n_sigma": 1.5, "nsigma": 1.5, "top_a": 0.2, "tfs": 0.9, "tfs_z": 0.9,
    "dynatemp_range": 0.5, "smoothing_factor": 0.3, "guidance_scale": 1.5, "negative_prompt": "bad",
    "no_repeat_ngram_size": 3, "lora": [{"id": 0, "scale": 1}], "encoder_repetition_penalty": 1.2,
    "epsilon_cutoff": 3, "eta_cutoff": 3, "penalty_alpha": 0.6, "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "wav"}, "prompt_logprobs": 0, "truncate_prompt_tokens": 100,
    "logits_processors": ["x.Y"], "custom_token_bans": "1,2", "banned_strings": ["a"], "safe_prompt": True,
    "adaptive_target": 0.5, "documents": [{"text": "a"}], "chat_template": "{{ 1 }}", "suffix": "a", "echo": True,
}  # fmt: skip


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_neutral_value_passes(name: str) -> None:
    body, ignored = chat(**{name: NEUTRAL[name]})
    assert body.model_dump() == chat()[0].model_dump()
    assert ignored == [name]


@pytest.mark.parametrize("name", EFFECTIVE)
def test_what_would_change_the_answer_is_refused_with_what_to_do_instead(name: str) -> None:
    with pytest.raises(ValidationError) as refused:
        chat(**{name: EFFECTIVE[name]})
    error = refusal(refused.value.errors(), ChatCompletionRequest)
    assert error.param == name
    assert error.message.startswith(f"{name} is not supported: ")


def test_sampling_that_one_api_has_is_not_lost_at_another() -> None:
    """A field that says how to sample is never merely unknown, nor is one that makes the prompt."""
    sampling = SamplingFields.shape
    names = {*sampling.names, *sampling.aliases, *sampling.refused} - {"model", "user", "priority", "request_id"}
    names -= {"routed_experts", "stream_options", "rid"}  # whether they were done can be seen
    for model, _ in MINIMAL[:4]:
        shape = model.shape
        assert names - {*shape.names, *shape.aliases, *shape.refused, *shape.adapted} == set(), model


@pytest.mark.parametrize("field", [{"logit_bias": {"1": 5}}, {"n": 2}, {"typical": 0.5}, {"grammar": 'root ::= "a"'}])
def test_it_is_refused_there(field: dict[str, Any]) -> None:
    for model, body in MINIMAL[2:4]:
        with pytest.raises(ValidationError, match="is not supported: use /v1/chat/completions"):
            read(model, {**body, **field})


def test_stop_texts_of_messages_under_openais_name() -> None:
    body, ignored = read(MessagesRequest, {"messages": HI, "max_tokens": 4, "stop": "a", "repeat_penalty": 1.2})
    assert (body.stop_sequences, body.repetition_penalty, ignored) == (["a"], 1.2, [])


def test_every_refused_field_says_what_to_do() -> None:
    assert all(one.fix for one in SAMPLING_REFUSED.values())
    assert set(SAMPLING_REFUSED) >= set(NEUTRAL) - {"best_of"}


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"tool_choice": "required"}, "tool_choice needs tools"),
    ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice needs tools"),
    ({"messages": [{"role": "user", "text": "hi"}]}, "content must be a text"),
    ({"messages": [{"role": "tool", "output": "x"}]}, "content must be a text"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "type"),
    ({"response_format": {"type": "json_schema"}}, "json_schema.schema must be given"),
    ({"temperature": "hot"}, "temperature"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
]


@pytest.mark.parametrize(("fields", "said"), CONTRADICTIONS)
def test_what_was_rightly_refused_stays_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        chat(**fields)


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_object", "schema": {"type": "object"}},
        {"type": "json_schema", "schema": {"type": "object"}},
        {"type": "json", "value": {"type": "object"}},
        {"type": "json_object", "json_schema": {"schema": {"type": "object"}, "odd": 1}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    ],
)
def test_a_schema_in_every_place_where_servers_take_it(form: dict[str, Any]) -> None:
    structured = chat(response_format=form)[0].structured()
    assert structured is not None
    assert structured.json_schema == '{"type": "object"}'


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"top_p": 0}, "top_k", 1),
        ({"top_k": -5}, "top_k", 0),
        ({"seed": -1}, "seed", None),
        ({"seed": -2}, "seed", 2**63 - 2),
        ({"seed": 2**64 + 3}, "seed", 3),
        ({"stop": ""}, "stop", ()),
        ({"stop": ["", "a"]}, "stop", ("a",)),
        ({"stop": [None, "a", None]}, "stop", ("a",)),
        ({"logprobs": 500}, "logprobs", 100),
    ],
)
def test_edges_of_sampling(given: dict[str, Any], field: str, value: Any) -> None:
    assert getattr(sampling_params(given), field) == value


def test_ids_that_the_model_does_not_have_are_ignored() -> None:
    ignored = IgnoredFields()
    with collecting(ignored):
        params = chat(logit_bias={"5": 1, "50256": -100}, stop_token_ids=[3, 50256])[0].sampling({}, 100)
    assert (params.logit_bias, params.stop_token_ids) == ({5: 1}, (3,))
    assert ignored.names == ["logit_bias[]", "stop_token_ids[]"]


def test_the_header_is_bounded_and_printable() -> None:
    ignored = IgnoredFields()
    for number in range(1000):
        ignored.add(f"ä\r\nx-evil: {number}" + "y" * 500, known=False)
    shown = ignored.header()
    assert len(ignored.names) == MAX_FIELDS
    assert len(shown) <= MAX_HEADER_CHARACTERS + 5
    assert shown.isascii()
    assert shown.isprintable()
    assert shown.endswith(", ...")


@given(st.dictionaries(st.text(max_size=12), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8,
), max_size=5))  # fmt: skip
def test_whatever_else_a_body_holds_it_is_read_or_refused_in_words(more: dict[str, Any]) -> None:
    for model, body in MINIMAL:
        try:
            read(model, {**more, **body})
        except ValidationError as refused:
            error = refusal(refused.errors(), model)
        else:
            continue
        assert error.status_code == 400


INNER = (
    "type function custom name tools allowed_tools mode content role input arguments source data schema json_schema "
    "format call_id id output action budget_tokens thinking text title namespace value prefix tool_calls function_call"
).split()
WORDS = [
    "function", "custom", "namespace", "allowed_tools", "auto", "any", "required", "tool", "text", "thinking", "image",
    "document", "search_result", "tool_use", "tool_result", "redacted_thinking", "message", "function_call",
    "function_call_output", "local_shell_call", "shell_call_output", "mcp_call", "item_reference", "reasoning", "user",
    "assistant", "tool", "function", "json_schema", "json_object", "json", "enabled", "disabled", "continue", "-1", "{",
]  # fmt: skip
CONFUSED = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(allow_nan=False) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INNER), inner, max_size=5),
    max_leaves=12,
)


@pytest.mark.parametrize(("model", "body"), MINIMAL)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_values_of_other_types_are_refused_in_words(model: type[RequestBody], body: Any, data: st.DataObject) -> None:
    shape = model.shape
    names = sorted({*shape.names, *shape.aliases, *shape.adapted})
    more = data.draw(st.dictionaries(st.sampled_from(names), CONFUSED, max_size=4))
    try:
        read(model, {**body, **more})
    except ValidationError as refused:
        error = refusal(refused.errors(), model)
    else:
        return
    assert error.status_code == 400


@pytest.fixture(scope="module")
def strict(tiny_folder: Path) -> Iterator[Live]:
    with live(tiny_engine(tiny_folder), strict=True) as server:
        yield server


def test_ignored_fields_are_listed_in_the_header_also_on_streams_and_errors(tiny: Live) -> None:
    fields: dict[str, Any] = {"max_tokens": 2, "store": True, "odd_one": 1}
    for more in ({}, {"stream": True}, {"temperature": -1}, {"mirostat": 2}):
        answer = tiny.chat("hi", **fields, **more)
        assert answer.status_code == (400 if more.keys() & {"temperature", "mirostat"} else 200)
        assert answer.headers["x-ignored-fields"] == "store, odd_one"
    assert "x-ignored-fields" not in tiny.chat("hi", max_tokens=2).headers


def test_ignored_fields_are_counted_under_names_that_the_server_knows(tiny: Live) -> None:
    tiny.chat("hi", max_tokens=1, prompt_cache_key="x", another_odd_one=1)
    tiny.service.metrics._text_at = float("-inf")
    text = tiny.client.get("/metrics").text
    assert 'deepseek:request_fields_ignored_total{field="prompt_cache_key"}' in text
    assert 'deepseek:request_fields_ignored_total{field="other"}' in text
    assert "another_odd_one" not in text


def test_ignored_fields_are_in_the_debug_log(tiny: Live, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "deepseek.server"):
        tiny.chat("hi", max_tokens=1, store=True, odd=1)
    assert any(record.getMessage().endswith("ignored store, odd") for record in caplog.records)


def test_unknown_fields_of_forms_and_addresses_follow_the_rule(tiny: Live, strict: Live) -> None:
    stored = tiny.post("/v1/responses", {"input": "hi", "max_output_tokens": 1}).json()["id"]
    found = tiny.client.get(f"/v1/responses/{stored}?include[]=x&stream=false&include_obfuscation=false")
    assert found.status_code == 200
    assert found.headers["x-ignored-fields"] == "include[], stream, include_obfuscation"
    assert strict.client.get("/v1/responses/x?include=x").json()["error"]["param"] == "include"


def test_a_strict_server(strict: Live) -> None:
    refused = strict.chat("hi", temprature=1)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "temprature is not a known field: did you mean temperature?"
    within = strict.post("/v1/chat/completions", {"messages": [{**HI[0], "odd": 1}]})
    assert within.json()["error"]["param"] == "messages.0.odd"
    assert strict.chat("hi", max_tokens=1, store=True, user="x").status_code == 200


def test_a_prompt_that_is_only_computed(tiny: Live) -> None:
    for path, body, said in PROMPT_ONLY:
        for stream in (False, True):
            answer = tiny.post(path, {**body, "stream": stream})
            assert answer.status_code == 200
            if not stream:
                assert said(answer.json())


PROMPT_ONLY: list[tuple[str, dict[str, Any], Callable[[Any], bool]]] = [
    ("/v1/chat/completions", {"messages": HI, "max_tokens": 0},
     lambda answer: answer["choices"][0]["message"]["content"] == "" and answer["usage"]["completion_tokens"] == 0),
    ("/v1/messages", {"messages": HI, "max_tokens": 0},
     lambda answer: answer["content"] == [] and answer["stop_reason"] == "max_tokens"),
    ("/v1/responses", {"input": "hi", "max_output_tokens": 0}, lambda answer: answer["output"] == []),
]  # fmt: skip


def test_upper_bounds_are_clamped(tiny: Live) -> None:
    top = tiny.engine.max_model_len
    for path, body in (
        ("/v1/chat/completions", {"messages": HI, "max_tokens": 10 * top, "stop": ["a", "e", "i"]}),
        ("/v1/chat/completions", {"messages": HI, "max_tokens": 10 * top, "max_completion_tokens": 2}),
        ("/v1/completions", {"prompt": "hi", "max_tokens": 10 * top, "stop": ["a", "e", "i"]}),
        ("/v1/messages", {"messages": HI, "max_tokens": 10 * top, "stop_sequences": ["a", "e", "i"]}),
        ("/v1/responses", {"input": "hi", "max_output_tokens": 10 * top, "stop": ["a", "e", "i"]}),
    ):
        assert tiny.post(path, body).status_code == 200, path


def test_an_older_function_call_is_answered_as_one(tiny: Live) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    function = {"name": "f", "parameters": schema}
    fields: dict[str, Any] = {"functions": [function], "function_call": {"name": "f"}, "max_tokens": 300, "seed": 1}
    choice = tiny.chat("hi", **fields).json()["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"]["name"] == "f"
    assert json.loads(choice["message"]["function_call"]["arguments"])["n"] in (1, 2)
    assert "tool_calls" not in choice["message"]
    streamed = tiny.chat("hi", **fields, stream=True).text
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in streamed.split("\n") if line[6:7] == "{"]
    calls = [delta["function_call"] for delta in deltas if "function_call" in delta]
    assert calls[0]["name"] == "f"
    assert "".join(call["arguments"] for call in calls) == choice["message"]["function_call"]["arguments"]


def test_a_custom_tool_is_given_one_text(tiny: Live) -> None:
    fields: dict[str, Any] = {
        "tools": [{"type": "custom", "custom": {"name": "patch", "format": {"type": "text"}}}],
        "tool_choice": {"type": "custom", "custom": {"name": "patch"}}, "max_tokens": 80,
    }  # fmt: skip
    answer = tiny.chat("hi", **fields)
    assert answer.headers["x-ignored-fields"] == "tools[].custom.format"
    (call,) = answer.json()["choices"][0]["message"]["tool_calls"]
    assert call["type"] == "custom"
    assert call["custom"]["name"] == "patch"
    assert isinstance(call["custom"]["input"], str)
    assert "function" not in call
