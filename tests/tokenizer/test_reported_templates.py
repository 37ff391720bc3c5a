"""Inputs of public bug reports on chat templates: each prints what Transformers prints, or what the row says.

verdict: `ok` if the row was right when it was added, else what was fixed.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import transformers

from deepseek.errors import TokenizerError
from deepseek.tokenizer import AutoTokenizer
from test_reported_tokenizers import Files

HUB = "https://github.com/"
USER = {"role": "user", "content": "Straße <b>"}
ASKED = [{"role": "user", "content": "w?"}]
CALL = {"type": "function", "function": {"name": "f", "arguments": {"city": "Zürich", "days": 3}}}
CALLED = [*ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "rain"}]
AS_TEXT = [*ASKED, {"role": "assistant", "content": "", "tool_calls": [
    {"type": "function", "function": {"name": "f", "arguments": json.dumps(CALL["function"]["arguments"])}}]}]  # type: ignore[index] # fmt: skip
TOOL = {"type": "function", "function": {"name": "f", "description": "Straße 'x' & <b>", "parameters": {
    "type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}}}}  # fmt: skip
EACH = "{% for m in messages %}%s{% endfor %}"
CALLS = "{{ m.content }}{% for c in m.tool_calls or [] %}{% set a = c.function.arguments %}"
OPEN = {"add_generation_prompt": False, "continue_final_message": True}
NAMED = [{"name": "default", "template": "D{{ messages[0].content }}"},
         {"name": "tool_use", "template": "T{{ messages[0].content }}{{ tools | length }}"}]  # fmt: skip


@dataclass(frozen=True)
class Report:
    """prints: None for what Transformers prints. error: a part of the message where the chat is refused."""

    source: str
    input: str
    template: Any
    messages: list[dict[str, Any]] = field(default_factory=lambda: [USER])
    options: dict[str, Any] = field(default_factory=dict)
    prints: str | None = None
    error: str = ""
    files: dict[str, Any] = field(default_factory=dict)
    verdict: str = "ok"


def each(body: str) -> str:
    return EACH.replace("%s", body)


PLAIN = each("{{ m.content }}")

REPORTS = [
    Report(HUB + "vllm-project/vllm/pull/54368", "content null beside tool calls",
           each("<{{ m.content }}>"), CALLED, verdict="fixed: not the word None"),
    Report(HUB + "Blaizzy/mlx-vlm/pull/1837", "the same where a template reads parts", each(
        "{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}"), CALLED, verdict="fixed: no failure"),
    Report(HUB + "cubist38/mlx-openai-server/pull/205", "a template that knows tool calls by content being none", each(
        "{% if m.content is none %}[calls]{% else %}{{ m.content }}{% endif %}"), CALLED, prints="w?[calls]rain"),
    Report(HUB + "openai/openai-agents-python/pull/2238", "tool_calls null", each(
        "{{ m.content }}{% if 'tool_calls' in m %}{% for c in m.tool_calls %}c{% endfor %}{% endif %}"),
        [*ASKED, {"role": "assistant", "content": "no", "tool_calls": None}], verdict="fixed: no failure"),
    Report(HUB + "deepseek-ai/DeepSeek-V3/issues/860", "arguments as an object, looped over", each(
        CALLS + "{% for k, v in a.items() %}{{ k }}={{ v }};{% endfor %}{% endfor %}"), [
            *ASKED, {**CALLED[1], "content": ""}]),
    Report(HUB + "QwenLM/Qwen3/issues/1894", "arguments as JSON text where a template wants an object", each(
        CALLS + "{% for k, v in a | items %}{{ k }}{% endfor %}{% endfor %}"), AS_TEXT,
        error="Can only get item pairs from a mapping"),
    Report(HUB + "mistralai/mistral-common/issues/311", "tojson does not escape for HTML",
           "{{ tools | tojson }}" + PLAIN, options={"tools": [TOOL]}),
    Report(HUB + "google/minja/pull/69", "tojson with ensure_ascii",
           "{{ tools | tojson(ensure_ascii=False) }}" + PLAIN, options={"tools": [TOOL]}),
    Report(HUB + "EricLBuehler/mistral.rs/pull/649", "tojson with indent", "{{ tools | tojson(indent=4) }}" + PLAIN,
            options={"tools": [TOOL]}),
    Report(HUB + "EricLBuehler/mistral.rs/pull/2371", "keys of tools keep their order",
           "{{ tools[0].function.parameters.properties | tojson }}" + PLAIN, options={"tools": [TOOL]}),
    Report(HUB + "EricLBuehler/mistral.rs/pull/1132", "strftime_now", "{{ strftime_now('%%') }}" + PLAIN),
    Report(HUB + "oobabooga/textgen/pull/6692", "a template that asks whether strftime_now is there",
           "{% if strftime_now is defined %}{{ strftime_now('%%') }}{% else %}2024{% endif %}" + PLAIN),
    Report(HUB + "abetlen/llama-cpp-python/pull/1486", "generation blocks and loop controls", each(
        "{% generation %}{{ m.content }}{% endgeneration %}{% break %}")),
    Report(HUB + "ggml-org/llama.cpp/pull/15086", "a template writes bos, which no post-processor doubles",
           "{{ bos_token }}" + PLAIN, prints="<|im_start|>Straße <b>"),
    Report(HUB + "FasterDecoding/Medusa/issues/102", "a template refuses the roles", each(
        "{{ raise_exception('roles must alternate') }}"), error="roles must alternate"),
    Report(HUB + "huggingface/transformers/pull/34214", "a final message whose end the template trims", each(
        "{{ m.content | trim }}\n"), [USER, {"role": "assistant", "content": "It is "}], OPEN),
    Report(HUB + "huggingface/transformers/pull/36404", "a final message that repeats an earlier one", each(
        "{{ m.content }}<end>"), [USER, {"role": "assistant", "content": "Straße <b>"}], OPEN),
    Report(HUB + "huggingface/transformers/pull/40732", "an empty final message", each("{{ m.content }}<end>"),
           [USER, {"role": "assistant", "content": ""}], OPEN),
    Report(HUB + "ai-dynamo/dynamo/pull/13841", "a final message that the template changes", each(
        "{{ m.content | upper }}<end>"), [USER, {"role": "assistant", "content": "ab"}], OPEN,
        error="does not print the last message unchanged"),
    Report(HUB + "ggml-org/llama.cpp/issues/6484", "named templates: the default", NAMED),
    Report(HUB + "ggml-org/llama.cpp/issues/6484", "named templates: the one for tools", NAMED,
           options={"tools": [TOOL]}),
    Report(HUB + "containers/ramalama/pull/1890", "chat_template.jinja wins over the config",
           "A{{ messages[0].content }}",
           files={"chat_template.jinja": "J{{ messages[0].content }}\n"}),
    Report(HUB + "ggml-org/llama.cpp/issues/11402", "namespace and selectattr",
           "{% set ns = namespace(n=0) %}{% set u = messages | selectattr('role', 'equalto', 'user') | list %}" + each(
               "{% set ns.n = ns.n + 1 %}{{ m.content }}") + "{{ ns.n }}{{ messages[0] == u[-1] }}"),
    Report(HUB + "nomic-ai/gpt4all/issues/3255", "tools that are not given are none, not undefined",
           "{% if not tools is defined %}undefined{% endif %}{{ tools is none }}" + PLAIN),
    Report(HUB + "ggml-org/llama.cpp/pull/13140", "blocks on lines of their own", "{%- for m in messages %}\n"
           "  {%- if true %}\n    {{- m.content }}\n  {%- endif %}\n{%- endfor %}\n"),
]  # fmt: skip


@pytest.mark.parametrize("report", [pytest.param(report, id=report.input) for report in REPORTS])
def test_report(report: Report, tmp_path: Path) -> None:
    files = Files()
    files.config["chat_template"] = report.template
    folder = files.write(tmp_path)
    for name, content in report.files.items():
        (folder / name).write_text(content)
    ours = AutoTokenizer.from_pretrained(folder)
    if report.error:
        with pytest.raises(TokenizerError, match=report.error):
            ours.apply_chat_template(report.messages, **report.options)
        return
    expected = report.prints
    if expected is None:
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        options = {"add_generation_prompt": True, **report.options}
        expected = theirs.apply_chat_template(report.messages, tokenize=False, **options)
    assert ours.apply_chat_template(report.messages, **report.options) == expected, report.source
    assert ours.encode_chat(report.messages, **report.options) == ours.encode(expected, add_special_tokens=False)
