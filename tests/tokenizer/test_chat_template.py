"""Chat templates print what Transformers prints."""

import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers.utils.chat_template_utils import render_jinja_template

from deepseek.errors import TokenizerError
from deepseek.tokenizer import Tokenizer
from deepseek.tokenizer.chat_template import render
from deepseek.tokenizer.sandbox import ChatTemplateRefusal

TEMPLATES = {path.stem: path.read_text() for path in (Path(__file__).parent / "templates").glob("*.jinja")}
TOKENS = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Wetter für <Ort> & \"Tag\"",
        "parameters": {"type": "object", "properties": {"place": {"type": "string", "enum": ["北京", "Köln"]}}},
    },
}  # fmt: skip


def call(arguments: Any) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}


def chats(arguments: Any) -> dict[str, list[dict[str, Any]]]:
    """Arguments are an object for Qwen's templates and text for DeepSeek's."""
    system, user = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " 你好 <b>&amp;</b>\n{{ x }} "},
    )
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nFine."}
    asked = {"role": "assistant", "content": "Let me see.", "tool_calls": [call(arguments), call(arguments)]}
    told = [{"role": "tool", "content": "12 °C"}, {"role": "tool", "content": "rain"}]
    return {
        "one": [user],
        "system": [system, user],
        "two systems": [system, system, user],
        "turns": [system, user, thought, user],
        "reasoning": [user, {"role": "assistant", "content": "Fine.", "reasoning_content": "hm"}, user],
        "tools": [system, user, asked, *told],
        "tools answered": [user, asked, *told, {"role": "assistant", "content": "Wet."}, user],
        "silent call": [user, {"role": "assistant", "content": None, "tool_calls": [call(arguments)]}, *told],
        "other name": [user, {"role": "assistant", "content": "Fine.", "reasoning": "hm"}],
        "ends with assistant": [user, {"role": "assistant", "content": "So"}],
    }


def without_nulls(template: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As `apply_chat_template` of Transformers does before it renders; DeepSeek's templates ask whether it is none."""
    kept = "content" if re.search(r"content['\"]?\]? is (not )?none", template) else None
    return [{key: value for key, value in message.items() if value is not None or key == kept} for message in messages]


def theirs(template: str, messages: list[dict[str, Any]], **variables: Any) -> str:
    (text,), _ = render_jinja_template([without_nulls(template, messages)], chat_template=template, **variables)
    return str(text)


@pytest.mark.parametrize("name", ["smollm2", *sorted(TEMPLATES)])
@pytest.mark.parametrize("tools", [None, [WEATHER]])
@pytest.mark.parametrize("options", [{}, {"enable_thinking": False}, {"thinking": True}, {"enable_thinking": True}])
def test_equal_to_transformers(name: str, tools: Any, options: dict[str, Any], request: pytest.FixtureRequest) -> None:
    template = TEMPLATES[name] if name in TEMPLATES else request.getfixturevalue("smollm2").chat_template
    arguments = '{"place": "北京"}' if "deepseek" in name else {"place": "北京"}
    rendered = 0
    for messages in chats(arguments).values():
        for prompt in (True, False):
            variables = {**TOKENS, **options, "tools": tools, "add_generation_prompt": prompt}
            try:
                expected = theirs(template, messages, **variables)
            except Exception:  # noqa: BLE001 (a template that cannot take these messages)
                with pytest.raises(TokenizerError, match="the chat template failed"):
                    render(template, messages, **variables)
                continue
            assert render(template, messages, **variables) == expected
            rendered += 1
    assert rendered >= 12


def test_ids_equal_transformers(smollm2: Tokenizer, tmp_path: Path) -> None:
    smollm2.save_pretrained(tmp_path)
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for messages in (chats({})["turns"], chats({})["system"], chats({})["one"]):
        expected = reference.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert smollm2.encode_chat(messages) == expected


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3", "deepseek-v3"])
@pytest.mark.parametrize("final", ["So", "So  ", [{"type": "text", "text": "So"}]])
def test_continue_final_message(name: str, final: Any) -> None:
    template = TEMPLATES[name]
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": final}]
    options = {**TOKENS, "add_generation_prompt": False, "continue_final_message": True}
    if isinstance(final, list):
        template = "{% for m in messages %}{{ m.content if m.content is string else m.content[0].text }}{% endfor %}"
    text = render(template, messages, **options)
    assert text == theirs(template, messages, **options)
    assert text.endswith(final if isinstance(final, str) else "So")
    with pytest.raises(TokenizerError, match="exclude each other"):
        render(template, messages, continue_final_message=True)


@pytest.mark.parametrize(
    "template",
    [
        "{{ {'b': '<é>', 'a': [1, 2.5, none, true]} | tojson }}",
        "{{ messages | tojson(indent=2) }}{{ messages | tojson(ensure_ascii=true, sort_keys=true) }}",
        "{% for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}"
        "{% if loop.last %}{% break %}{% endif %}{{ loop.length }}{{ loop.index }}{{ m.role }}"
        "{{ loop.cycle('x', 'y') }}{% endfor %}",
        "{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f(1) }}{{ f('a') ~ f(none) ~ 1 ~ missing }}",
        "{% macro g() %}<{{ caller() }}>{% endmacro %}{% call g() %}x{% endcall %}",
        "{% generation %}a{{ messages[0].content }}{% endgeneration %}b",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
        "{% for k, v in messages[0] | dictsort %}{{ k }}={{ v }};{% endfor %}",
        "{{ messages | map(attribute='role') | list }}",
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ '%s-%03d' | format('a', 7) }}",
        "{{ '%s|%s' % ('a', 3) }}{{ '{:>5}'.format('x') }}{{ 'ab' * 3 }}{{ 2 ** 10 }}",
        "{{ 7 // 2 }}{{ 7 % 4 }}{{ [1] + [2] }}",
        "  {% if true %}\n  x\n  {% endif %}\n{%- set y %}block {{ 1 }}{% endset %}"
        "{{ y | trim | upper | replace('B', 'c') }}",
        "{{ messages[::-1][0].role }}{{ messages[-1]['content'][1:3] }}{{ 'a,b'.split(',') | join('-') }}",
        "{{ messages[0].content.strip().splitlines() }}{{ dict(a=1).items() | list }}",
        "{{ range(3) | list }}{{ missing is defined }}",
        "{{ messages | batch(2) | list | length }}{{ 'x' | indent(2, true) }}",
        "{{ 'abc' | center(9) }}{{ 2.567 | round(1) }}",
        "{% for m in messages recursive %}{{ m.role }}{{ loop(m.kids) if m.kids else '' }}{% endfor %}{{ missing }}",
        "{{ 'x' if messages else 'y' }}{{ [3, 1, 2] | sort | first }}{{ [1, 2] | sum }}",
        "{{ 'a' in 'abc' }}{{ messages is sequence }}",
    ],
)
def test_the_language_is_transformers(template: str) -> None:
    messages = [{"role": role, "content": " a\nbé<"} for role in ("system", "user", "assistant")]
    assert render(template, messages, add_generation_prompt=False) == theirs(template, messages)


def test_strftime_now() -> None:
    text = render("{{ strftime_now('%Y-%m-%d') }}", [{"role": "user", "content": "x"}])
    assert abs((datetime.date.fromisoformat(text) - datetime.date.today()).days) <= 1


def test_a_template_may_refuse() -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ChatTemplateRefusal, match="refuses these messages: roles must alternate"):
        render(template, [{"role": "user", "content": "x"}])


NAMED = {"default": "D", "tool_use": "T", "rag": "R"}


def test_named_templates(smollm2: Tokenizer) -> None:
    tokenizer = Tokenizer(
        json.loads(smollm2.to_json()),
        smollm2.config,
        {name: first + "{{ messages[0].content }}" for name, first in NAMED.items()},
    )
    messages = [{"role": "user", "content": "x"}]
    assert tokenizer.apply_chat_template(messages) == "Dx"
    assert tokenizer.apply_chat_template(messages, tools=[WEATHER]) == "Tx"
    assert tokenizer.apply_chat_template(messages, chat_template="rag") == "Rx"
    assert tokenizer.apply_chat_template(messages, chat_template="{{ messages[0].content }}") == "x"
    with pytest.raises(TokenizerError, match="no chat template is called 'none'"):
        tokenizer.apply_chat_template(messages, chat_template="none")


def test_no_template_is_said(byte_level: Tokenizer) -> None:
    assert byte_level.chat_template is None
    with pytest.raises(TokenizerError, match="has no chat template"):
        byte_level.apply_chat_template([{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages is empty"),
        ("hi", "messages must be a list"),
        ({"role": "user"}, "messages must be a list"),
        (["hi"], r"messages\[0\] must be an object"),
        ([{"content": "x"}], r"messages\[0\].role must be a name"),
        ([{"role": "us<|er", "content": "x"}], r"messages\[0\].role must be a name"),
        ([{"role": "user", "content": 5}], r"messages\[0\].content must be a text"),
        ([{"role": "user", "content": [7]}], r"messages\[0\].content\[0\] must be an object"),
        ([{"role": "user", "content": "\ud800"}], "half a surrogate"),
        ([{"role": "user", "content": "x", "extra": object()}], "holds a object"),
        ([{"role": "user", "content": "x", 5: "y"}], "key that is not a text"),
    ],
)
def test_messages_are_checked(messages: Any, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        render("x", messages)


def test_deep_messages_and_odd_tools_are_refused() -> None:
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(TokenizerError, match="nested deeper than"):
        render("x", [{"role": "user", "content": "x", "extra": deep}])
    with pytest.raises(TokenizerError, match=r"tools\[0\] must be a JSON schema"):
        render("x", [{"role": "user", "content": "x"}], tools=["f"])


def test_the_callers_messages_stay_as_they_are() -> None:
    messages = [{"role": "assistant", "content": "So", "reasoning": "hm"}]
    render("{{ messages }}", messages, add_generation_prompt=False)
    assert messages == [{"role": "assistant", "content": "So", "reasoning": "hm"}]
