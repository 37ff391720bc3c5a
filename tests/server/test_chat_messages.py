"""OpenAI's messages as templates read them: normalised, refused by name, rendered by published templates."""

import json
from pathlib import Path
from typing import Any

import pytest

from answers import answer, counted_parser
from deepseek.errors import GenerationError
from deepseek.server.chat_messages import for_template
from deepseek.server.parsing import detect
from deepseek.tokenizer.chat_template import render

TEMPLATES = {
    path.stem: path.read_text() for path in (Path(__file__).parent.parent / "tokenizer/templates").glob("*.jinja")
}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Nîmes", "days": 3}'},
}
CHAT: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be short."},
    {"role": "user", "content": [{"type": "text", "text": "What will it "}, {"type": "text", "text": "be like?"}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL, CALL], "refusal": None, "audio": None},
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "sun"}]},
]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}, "strict": True}}]


def test_messages_become_what_templates_read() -> None:
    messages, tools = for_template(CHAT, TOOLS)
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": {"city": "Nîmes", "days": 3}},
    }
    assert messages == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "What will it be like?"},
        {"role": "assistant", "content": "", "tool_calls": [call, call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
    ]
    assert tools == [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    assert CHAT[0]["role"] == "developer"


def test_nothing_given_is_nothing() -> None:
    assert for_template([{"role": "assistant", "content": "x", "tool_calls": []}], []) == (
        [{"role": "assistant", "content": "x"}],
        None,
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_published_template_prints_the_calls_so_that_they_are_read_again(name: str) -> None:
    """What the model is shown as its own call is what the parser reads as one."""
    template = TEMPLATES[name]
    messages, tools = for_template(CHAT, TOOLS, chat_template=template)
    text = render(template, messages, tools=tools, bos_token="<s>")
    shown = text[text.index("be like?") :]
    found = answer(counted_parser(None, detect(template, "")[1]), [shown])
    arguments = {"city": "Nîmes", "days": 3}
    assert [(call[1], json.loads(call[2])) for call in found.calls] == [("weather", arguments)] * 2
    assert "rain" in found.content
    assert "sun" in found.content


def test_arguments_are_text_only_where_a_template_joins_them() -> None:
    as_text = {name for name, template in TEMPLATES.items() if isinstance(shown_arguments(template), str)}
    assert as_text == {"deepseek-v3", "deepseek-r1", "deepseek-v3.1"}


def shown_arguments(template: str) -> object:
    messages, _ = for_template(CHAT, None, chat_template=template)
    return messages[2]["tool_calls"][0]["function"]["arguments"]


def user(content: object) -> list[Any]:
    return [{"role": "user", "content": content}]


def calling(**changes: object) -> list[Any]:
    return [{"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", **changes}}]}]


@pytest.mark.parametrize(
    ("messages", "refusal"),
    [
        ("hello", "messages must be a list"),
        (["hello"], "messages[0] must be an object"),
        (user(None), "messages[0].content must be a text"),
        (user(3), "messages[0].content must be a text"),
        (
            user([{"type": "image_url", "image_url": {}}]),
            "messages[0].content[0].type is 'image_url', which this model",
        ),
        (user([{"type": "input_audio", "input_audio": {}}]), "messages[0].content[0].type is 'input_audio', which"),
        (user([{"type": "text"}]), "messages[0].content[0].text must be a text"),
        (user([{"type": "text", "text": "a", "size": 1}]), "messages[0].content[0].size is not supported"),
        (user(["a"]), "messages[0].content[0] must be an object"),
        ([{"role": "function", "content": "a"}], "messages[0].role must be one of system, developer, user, assistant"),
        ([{"role": ["user"], "content": "a"}], "messages[0].role must be one of"),
        ([{"role": "user", "content": "a", "audio": {"id": "1"}}], "messages[0].audio is not supported"),
        (
            [{"role": "user", "content": "a", "tool_calls": [CALL]}],
            "messages[0].tool_calls must be of a message with role",
        ),
        ([{"role": "user", "content": "a", "reasoning": "b"}], "messages[0].reasoning_content must be of a message"),
        ([{"role": "tool", "content": "a", "tool_call_id": 1}], "messages[0].tool_call_id must be a text"),
        ([{"role": "assistant", "tool_calls": "f()"}], "messages[0].tool_calls must be a list"),
        ([{"role": "assistant", "tool_calls": [{}]}], "messages[0].tool_calls[0] must be an object"),
        (calling(arguments=[1]), "messages[0].tool_calls[0].function.arguments must be an object, or the JSON text"),
        (calling(name=None), "messages[0].tool_calls[0].function.name must be a text"),
    ],
)
def test_what_templates_cannot_show_is_refused_by_name(messages: Any, refusal: str) -> None:
    with pytest.raises(GenerationError) as caught:
        for_template(messages, None)
    assert str(caught.value).startswith(refusal)


@pytest.mark.parametrize(
    ("tool", "refusal"),
    [
        ({"type": "web_search"}, "tools[0] must be an object with type and function"),
        ({"type": "custom", "function": {"name": "f"}}, "tools[0].type must be function, not 'custom'"),
        ({"type": "function", "function": {}}, "tools[0].function.name must be a text"),
    ],
)
def test_other_tools_are_refused_by_name(tool: Any, refusal: str) -> None:
    with pytest.raises(GenerationError) as caught:
        for_template(user("a"), [tool])
    assert str(caught.value).startswith(refusal)
