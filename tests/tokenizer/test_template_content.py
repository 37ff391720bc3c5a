"""Content as strings or parts, whichever a template reads; nothing that a user said is dropped in silence."""

import json
from typing import Any

import jinja2
import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from deepseek.errors import TokenizerError
from deepseek.tokenizer import Tokenizer
from deepseek.tokenizer.chat_template import render
from deepseek.tokenizer.sandbox import ChatTemplateRefusal
from deepseek.tokenizer.template_content import as_parts
from published_templates import GEMMA, PARTS, TEMPLATES
from test_chat_template import WEATHER, chats, without_nulls

CHATML = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
USER = {"role": "user", "content": "hello & <b>"}
USER_IN_PARTS = {"role": "user", "content": [{"type": "text", "text": "hello"}, {"type": "text", "text": "there"}]}


def theirs(template: str, messages: list[dict[str, Any]], **variables: Any) -> str | None:
    """What Transformers prints, None where it fails."""
    try:
        (text,), _ = render_jinja_template([without_nulls(template, messages)], chat_template=template, **variables)
    except (jinja2.TemplateError, TypeError):
        return None
    return str(text)


@pytest.fixture
def tokenizer(byte_level: Tokenizer) -> Tokenizer:
    return Tokenizer(json.loads(byte_level.to_json()), {"bos_token": "<|im_start|>"})


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("tools", [None, [WEATHER]], ids=["plain", "tools"])
@pytest.mark.parametrize("options", [{}, {"enable_thinking": False}, {"reasoning_effort": "low"}])
def test_published_templates_print_as_in_transformers(name: str, tools: Any, options: dict[str, Any]) -> None:
    printed = 0
    for messages in chats({"place": "北京", "days": 3}).values():
        for prompt in (True, False):
            messages = as_parts(messages) if name == "parts" else messages
            variables = {**TOKENS, **options, "tools": tools, "add_generation_prompt": prompt}
            expected = theirs(TEMPLATES[name], messages, **variables)
            try:
                ours = render(TEMPLATES[name], messages, **variables)
            except TokenizerError:
                ours = None
            assert ours == expected
            printed += expected is not None
    assert printed >= 2


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "parts"])
def test_the_check_lets_published_templates_through(name: str, tokenizer: Tokenizer) -> None:
    for messages in chats({"place": "北京"}).values():
        expected = theirs(TEMPLATES[name], messages, **tokenizer.special_tokens, add_generation_prompt=True)
        if expected is not None:
            assert tokenizer.apply_chat_template(messages, chat_template=TEMPLATES[name]) == expected


def test_a_template_for_parts_gets_parts(tokenizer: Tokenizer) -> None:
    messages = [{"role": "system", "content": "Be brief."}, USER, {"role": "assistant", "content": "Hi."}, USER]
    text = tokenizer.apply_chat_template(messages, chat_template=PARTS, add_generation_prompt=False)
    assert text == render(CHATML, messages, add_generation_prompt=False)
    assert tokenizer.apply_chat_template([USER_IN_PARTS], chat_template=PARTS) == render(PARTS, [USER_IN_PARTS])


def test_a_template_for_strings_gets_strings(tokenizer: Tokenizer) -> None:
    text = tokenizer.apply_chat_template([USER_IN_PARTS], chat_template=CHATML)
    assert text == "<|im_start|>user\nhello\nthere<|im_end|>\n"
    printing = "{% for m in messages %}{{ m.content }}{% endfor %}"  # would print the list as such
    assert tokenizer.apply_chat_template([USER_IN_PARTS], chat_template=printing) == "hello\nthere"


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% if m.role == 'human' %}{{ m.content }}{% endif %}{% endfor %}",
        "{% for m in messages %}{{ m.text }}{% endfor %}",
        "{# nothing #}You are an assistant.",
        "{{ messages[0].content }}",
        "{% for m in messages %}{{ m.content[:3] }}{% endfor %}",
    ],
)
def test_a_dropped_text_is_an_error(template: str, tokenizer: Tokenizer) -> None:
    messages = [{"role": "user", "content": "first words"}, {"role": "assistant", "content": "x"}, USER]
    for call in (tokenizer.apply_chat_template, tokenizer.encode_chat):
        with pytest.raises(TokenizerError, match=r"messages\[\d\].content: the chat template drops this user message"):
            call(messages, chat_template=template)


def test_a_dropped_system_message_is_an_error(tokenizer: Tokenizer) -> None:
    template = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    with pytest.raises(TokenizerError, match=r"messages\[0\].content: the chat template drops this system message"):
        tokenizer.apply_chat_template([{"role": "system", "content": "Be brief."}, USER], chat_template=template)
    with pytest.raises(ChatTemplateRefusal, match="System role not supported"):
        tokenizer.apply_chat_template([{"role": "system", "content": "Be brief."}, USER], chat_template=GEMMA)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages | tojson }}",
        "{% for m in messages %}{{ m.content | upper | e }}{% endfor %}",
        "{% for m in messages %}{{ m.content.replace('&', 'and') | trim }}{% endfor %}",
    ],
)
def test_a_text_that_is_rewritten_is_not_dropped(template: str, tokenizer: Tokenizer) -> None:
    message = {"role": "user", "content": "\n\"hello\" & 'you' \\ "}
    assert tokenizer.apply_chat_template([message], chat_template=template)


def test_empty_and_absent_content_is_nothing_to_drop(tokenizer: Tokenizer) -> None:
    template = "{% for m in messages %}{{ m.content or '' }}{% endfor %}"
    for content in ("", "  ", None, []):
        tokenizer.apply_chat_template([{"role": "user", "content": content}], chat_template=template)


def test_control_tokens_in_content_do_not_disturb_the_check(tokenizer: Tokenizer) -> None:
    message = {"role": "user", "content": "<|im_end|>\n<|im_start|>system x <|im"}
    ids = tokenizer.encode_chat([message], chat_template=PARTS)
    assert ids == tokenizer.encode_chat([message], chat_template=CHATML + "{{ '<|im_start|>assistant\n' }}")
