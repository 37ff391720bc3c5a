"""What would change the answer without anybody seeing it is honored or refused, wherever a client puts it."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from deepseek.errors import GenerationError
from deepseek.server.protocol.chat import ChatCompletionRequest
from deepseek.server.protocol.completions import CompletionRequest
from deepseek.server.protocol.ignored_fields import IgnoredFields, collecting
from deepseek.server.protocol.messages import MessagesRequest
from deepseek.server.protocol.responses import ResponsesRequest
from deepseek.server.protocol.tools import FunctionName

HI: list[Any] = [{"role": "user", "content": "hi"}]
F: dict[str, Any] = {"type": "function", "function": {"name": "f"}}
G: dict[str, Any] = {"name": "g"}
IMAGE = {"type": "image", "source": {"type": "base64", "data": "aGk="}}


def read(model: type[BaseModel], **fields: Any) -> tuple[Any, list[str]]:
    """The request as the server understands it, and what it ignores of it."""
    minimal: dict[Any, dict[str, Any]] = {
        ChatCompletionRequest: {"messages": HI},
        CompletionRequest: {"prompt": "hi"},
        ResponsesRequest: {"input": "hi"},
        MessagesRequest: {"messages": HI, "max_tokens": 4},
    }
    with collecting(ignored := IgnoredFields()):
        return model.model_validate({**minimal[model], **fields}), ignored.names


def user(*blocks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks) or "hi", **fields}]}


UNREADABLE: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (ChatCompletionRequest, user(image_url="https://a.example/b.png")),
    (ChatCompletionRequest, user(files=[{"id": "file-1"}])),
    (ChatCompletionRequest, user(attachments=[{"url": "data:"}])),
    (ChatCompletionRequest, user({"type": "text", "text": "see", "image_url": {"url": "data:"}})),
    (ChatCompletionRequest, {"files": [{"id": "file-1"}]}),
    (ChatCompletionRequest, {"video": "data:"}),
    (CompletionRequest, {"multimodal_data": ["aGk="]}),
    (MessagesRequest, user(images=["aGk="])),
    (MessagesRequest, user({"type": "document", "source": {"type": "content", "content": [IMAGE]}})),
    (MessagesRequest, user({"type": "search_result", "source": "s", "title": "t", "content": [IMAGE]})),
    (ResponsesRequest, {"input": [*HI, {"type": "input_image", "image_url": "data:"}]}),
    (ResponsesRequest, {"input": [*HI, {"type": "input_file", "file_id": "file-1"}]}),
    (
        ResponsesRequest,
        {"input": [{"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot"}}]},
    ),
]


@pytest.mark.parametrize(("model", "fields"), UNREADABLE)
def test_what_the_model_cannot_read_is_refused_wherever_it_stands(
    model: type[BaseModel], fields: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError, match=r"text only|cannot read|cannot be read"):
        read(model, **fields)


def test_a_text_among_the_items_is_said_by_the_user() -> None:
    body, ignored = read(ResponsesRequest, input=[{"type": "input_text", "text": "hello"}])
    assert (body.items[0].role, body.items[0].content[0].said, ignored) == ("user", "hello", [])


def test_texts_of_documents_stay() -> None:
    text = {"type": "text", "text": "forty-two"}
    body, _ = read(MessagesRequest, **user({"type": "document", "source": {"type": "content", "content": [text]}}))
    assert "forty-two" in body.messages[0].content[0].text


@pytest.mark.parametrize("block", [{"type": []}, {"type": {}}, {"type": None}])
def test_a_block_of_no_type_is_refused(block: dict[str, Any]) -> None:
    for role in ("user", "assistant"):
        with pytest.raises(ValidationError, match="type"):
            read(MessagesRequest, messages=[{"role": role, "content": [block]}])


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({"tools": [F], "function_call": {"name": "f"}}, FunctionName(name="f")),
        ({"tools": [F], "function_call": "none"}, "none"),
        ({"functions": [G], "tool_choice": "none"}, "none"),
        ({"functions": [G], "tool_choice": "required"}, "required"),
        ({"functions": [G], "tool_choice": {"type": "function", "function": {"name": "g"}}}, FunctionName(name="g")),
        ({"functions": [G], "function_call": "auto", "tool_choice": "auto"}, "auto"),
    ],
)
def test_a_choice_holds_under_either_name(fields: dict[str, Any], choice: str | FunctionName) -> None:
    assert read(ChatCompletionRequest, **fields)[0].choice == choice


@pytest.mark.parametrize("value", [False, 0, 0.0, "false", "False", "0"])
def test_no_sampling_in_every_spelling(value: Any) -> None:
    assert read(ChatCompletionRequest, do_sample=value)[0].temperature == 0


@pytest.mark.parametrize("value", [True, 1, "true", None])
def test_sampling_in_every_spelling(value: Any) -> None:
    assert read(ChatCompletionRequest, do_sample=value)[0].temperature is None


def test_penalties_over_no_tokens_are_none() -> None:
    """llama.cpp: repeat_last_n 0 turns them off."""
    body, _ = read(ChatCompletionRequest, repeat_last_n=0, repeat_penalty=1.5, presence_penalty=1)
    assert (body.repetition_penalty, body.presence_penalty) == (None, None)
    body, ignored = read(ChatCompletionRequest, repeat_last_n=64, repeat_penalty=1.5)
    assert (body.repetition_penalty, ignored) == (1.5, ["repeat_last_n"])


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"max_output_tokens": 5}, {"max_tokens": 5}),
        ({"num_return_sequences": 2}, {"n": 2}),
        ({"candidate_count": 2}, {"n": 2}),
        ({"stop_words": ["a"]}, {"stop": ["a"]}),
        ({"extra_body": {"guided_regex": "a+", "top_k": 3}}, {"guided_regex": "a+", "top_k": 3}),
    ],
)
def test_names_of_sibling_apis(given: dict[str, Any], meant: dict[str, Any]) -> None:
    body, ignored = read(ChatCompletionRequest, **given)
    assert (body.model_dump(), ignored) == (read(ChatCompletionRequest, **meant)[0].model_dump(), [])


def test_what_nobody_reads_of_extra_body_is_listed() -> None:
    body, ignored = read(ChatCompletionRequest, extra_body={"google": {"thinking_config": {}}, "seed": 3}, seed=3)
    assert (body.seed, ignored) == (3, ["google"])


CONTRADICTIONS: list[dict[str, Any]] = [
    {"think": False, "enable_thinking": True},
    {"thinking": {"type": "disabled"}, "enable_thinking": True},
    {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}},
    {"reasoning_effort": "none", "enable_thinking": True},
    {"reasoning": {"effort": "low"}, "reasoning_effort": "high"},
    {"tools": [F], "function_call": "none", "tool_choice": "required"},
    {"extra_body": {"top_k": 3}, "top_k": 4},
    {"logit_bias": [[5, 1], [5, -1]]},
    {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"schema": {"type": "object"}},
            "schema": {"type": "string"},
        }
    },
]


@pytest.mark.parametrize("fields", CONTRADICTIONS)
def test_contradictions_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"differ|contradict|exclude"):
        read(ChatCompletionRequest, **fields)


def test_two_biases_of_one_token_are_refused() -> None:
    body, _ = read(ChatCompletionRequest, logit_bias={"5": 1, "05": -1})
    with pytest.raises(GenerationError, match="token 5 twice"):
        body.sampling({}, 100)


@pytest.mark.parametrize(
    ("fields", "effort", "budget"),
    [
        ({"reasoning": {"enabled": False}}, "none", None),
        ({"enable_thinking": False}, "none", None),
        ({"reasoning": {"effort": "low", "max_tokens": 7}}, "low", 7),
        ({"reasoning": {"enabled": True}}, None, None),
    ],
)
def test_reasoning_of_responses_as_other_servers_spell_it(
    fields: dict[str, Any], effort: str | None, budget: int | None
) -> None:
    body, _ = read(ResponsesRequest, **fields)
    assert (body.reasoning.effort if body.reasoning else None, body.thinking_budget) == (effort, budget)
