"""What models wrote, from the test suites named at each, with what they meant by it."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recorded:
    """calls: (name, arguments as Python values). thinking_open, declared: as for `make_parser`."""

    text: str
    reasoning_parser: str | None = None
    tool_parser: str | None = None
    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    thinking_open: bool = False
    declared: list[dict[str, Any]] | None = None


THOUGHT = (
    "The user wants to check the weather in Beijing and Shanghai, I need to call the get_current_weather tool to get "
    "this information."
)
CITIES = [
    ("get_current_weather", {"location": "Beijing", "format": "celsius"}),
    ("get_current_weather", {"location": "Shanghai", "format": "celsius"}),
]

# ai-dynamo/dynamo lib/llm/tests/data/vllm/deepseek-v3 and deepseek-v3.1, chat_completion_stream_tool.json
DEEPSEEK = {
    "v3 two calls": Recorded(
        f"<think>{THOUGHT}</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_current_weather\n"
        '```json\n{"location": "Beijing", "format": "celsius"}\n```<｜tool▁call▁end｜><｜tool▁call▁begin｜>function'
        '<｜tool▁sep｜>get_current_weather\n```json\n{"location": "Shanghai", "format": "celsius"}\n```'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "deepseek_r1", "deepseek_v3", reasoning=THOUGHT, calls=CITIES,
    ),
    "v3.1 two calls": Recorded(
        f"<think>{THOUGHT}</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_current_weather<｜tool▁sep｜>"
        '{"location": "Beijing", "format": "celsius"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>get_current_weather'
        '<｜tool▁sep｜>{"location": "Shanghai", "format": "celsius"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        "deepseek_r1", "deepseek_v31", reasoning=THOUGHT, calls=CITIES,
    ),
    # vllm-project/vllm tests/tool_parsers/test_deepseekv3_tool_parser.py
    "v3 text before, strings escaped": Recorded(
        "Let me check the weather for you.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>"
        "function<｜tool▁sep｜>send_message\n"
        '```json\n{"text": "He said \\"hello\\"", "path": "C:\\\\Users\\\\file", "newline": "line1\\nline2"}\n```'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        None, "deepseek_v3", content="Let me check the weather for you.",
        calls=[("send_message", {"text": 'He said "hello"', "path": "C:\\Users\\file", "newline": "line1\nline2"})],
    ),
    "v3 every type": Recorded(
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>test_function\n```json\n"
        '{"string_field": "hello", "int_field": 42, "float_field": 3.14, "bool_field": true, "null_field": null, '
        '"array_field": ["a", "b", "c"], "object_field": {"nested": "value"}, "empty_array": [], "empty_object": {}}'
        "\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        None, "deepseek_v3",
        calls=[("test_function", {
            "string_field": "hello", "int_field": 42, "float_field": 3.14, "bool_field": True, "null_field": None,
            "array_field": ["a", "b", "c"], "object_field": {"nested": "value"}, "empty_array": [], "empty_object": {},
        })],
    ),
    "v3 no arguments": Recorded(
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_current_time\n```json\n{}\n```"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        None, "deepseek_v3", calls=[("get_current_time", {})],
    ),
    # vllm-project/vllm tests/tool_parsers/test_deepseekv31_tool_parser.py
    "v3.1 text around": Recorded(
        'some prefix text<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>foo<｜tool▁sep｜>{"x":1}<｜tool▁call▁end｜>'
        '<｜tool▁call▁begin｜>bar<｜tool▁sep｜>{"y":2}<｜tool▁call▁end｜><｜tool▁calls▁end｜> some suffix text',
        None, "deepseek_v31", content="some prefix text some suffix text", calls=[("foo", {"x": 1}), ("bar", {"y": 2})],
    ),
    # ai-dynamo/dynamo lib/llm/tests/data/deepseek-v3.2/test_output.txt: deepseek-ai/DeepSeek-V3.2, MIT
    "v3.2 after thinking": Recorded(
        "User is now asking about the day after tomorrow, which is 2024-01-17. I can query directly since I already "
        "know today's date.</think>\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"get_weather\">\n"
        '<｜DSML｜parameter name="location" string="true">San Francisco</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="date" string="true">2024-01-17</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        '<｜DSML｜invoke name="get_weather">\n'
        '<｜DSML｜parameter name="location" string="true">New York</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="date" string="true">2024-01-17</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        "</｜DSML｜function_calls>",
        "deepseek_r1", "deepseek_v32", thinking_open=True,
        reasoning="User is now asking about the day after tomorrow, which is 2024-01-17. I can query directly since I "
        "already know today's date.",
        calls=[
            ("get_weather", {"location": "San Francisco", "date": "2024-01-17"}),
            ("get_weather", {"location": "New York", "date": "2024-01-17"}),
        ],
    ),
    "v3.2 without thinking": Recorded(
        '\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_datetime">\n'
        '<｜DSML｜parameter name="timezone" string="true">America/New_York</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        "</｜DSML｜function_calls>",
        None, "deepseek_v32", calls=[("get_datetime", {"timezone": "America/New_York"})],
    ),
    # vllm-project/vllm tests/tool_parsers/test_deepseekv32_tool_parser.py
    "v3.2 typed values": Recorded(
        'Sure, let me check! <｜DSML｜function_calls>\n<｜DSML｜invoke name="set_timer">\n'
        '<｜DSML｜parameter name="wait" string="false">{"type":"for","minutes":2880}</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="patches" string="false">'
        '[{"op":"replace","path":"/schedule","value":"quiet"}]</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="enabled" string="false">true</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="ratio" string="false">3.14</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        "</｜DSML｜function_calls>",
        None, "deepseek_v32", content="Sure, let me check! ",
        calls=[("set_timer", {
            "wait": {"type": "for", "minutes": 2880},
            "patches": [{"op": "replace", "path": "/schedule", "value": "quiet"}], "enabled": True, "ratio": 3.14,
        })],
    ),
}  # fmt: skip

# vllm-project/vllm tests/tool_parsers/test_hermes_tool_parser.py
HERMES = {
    "one call": Recorded(
        '<tool_call>\n{"name": "final_answer", "arguments": {"trigger": true}}\n</tool_call>',
        None, "hermes", calls=[("final_answer", {"trigger": True})],
    ),
    "no line breaks": Recorded(
        '<tool_call>{"name": "get_current_temperature","arguments": {"location":'
        '"San Francisco, California, United States", "unit": "celsius"}}</tool_call>',
        None, "hermes",
        calls=[("get_current_temperature", {
            "location": "San Francisco, California, United States", "unit": "celsius",
        })],
    ),
    "text before": Recorded(
        'Sure, let me check the weather.<tool_call>{"name": "get_weather", "arguments": {"city": "NYC"}}</tool_call>',
        None, "hermes", content="Sure, let me check the weather.", calls=[("get_weather", {"city": "NYC"})],
    ),
    "two calls": Recorded(
        '<tool_call>{"name": "search", "arguments": {"q": "cats"}}</tool_call>'
        '<tool_call>{"name": "search", "arguments": {"q": "dogs"}}</tool_call>',
        None, "hermes", calls=[("search", {"q": "cats"}), ("search", {"q": "dogs"})],
    ),
    "ends without its marker": Recorded(
        '<tool_call>\n{"name": "final_answer", "arguments": {"trigger": true}}',
        None, "hermes", calls=[("final_answer", {"trigger": True})],
    ),
    "arguments as a text": Recorded(
        '<tool_call>\n{"name": "get_db_config", "arguments": "{\\"param\\": \\"max_connections\\"}"}\n</tool_call>',
        None, "hermes", calls=[("get_db_config", {"param": "max_connections"})],
    ),
    # The form of Qwen2.5 and Qwen3 (their templates): calls follow content after a line break.
    "qwen3 thinking, text, two calls": Recorded(
        "<think>\nOkay, the user is asking.\n\nLet me call.\n</think>\n\nI'll look both up. \U0001f60a\n<tool_call>\n"
        '{"name": "get_weather", "arguments": {"location": "東京", "unit": "celsius"}}\n</tool_call>\n<tool_call>\n'
        '{"name": "get_weather", "arguments": {"location": "Nice", "unit": "celsius"}}\n</tool_call>',
        "qwen3", "hermes", content="I'll look both up. \U0001f60a",
        reasoning="Okay, the user is asking.\n\nLet me call.",
        calls=[
            ("get_weather", {"location": "東京", "unit": "celsius"}),
            ("get_weather", {"location": "Nice", "unit": "celsius"}),
        ],
    ),
}  # fmt: skip

WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "state": {"type": "string"}}},
    },
}
AREA_TOOL = {
    "type": "function",
    "function": {
        "name": "calculate_area",
        "parameters": {
            "type": "object",
            "properties": {
                "shape": {"type": "string"},
                "dimensions": {"type": "object"},
                "precision": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            },
        },
    },
}

# vllm-project/vllm tests/tool_parsers/test_qwen3coder_tool_parser.py and tests/reasoning/test_qwen3_reasoning_parser.py
CODER = {
    "two calls": Recorded(
        "<tool_call>\n<function=get_current_weather>\n<parameter=city>\nDallas\n</parameter>\n<parameter=state>\nTX\n"
        "</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=get_current_weather>\n<parameter=city>\n"
        "Orlando\n</parameter>\n<parameter=state>\nFL\n</parameter>\n</function>\n</tool_call>",
        None, "qwen3_coder", declared=[WEATHER_TOOL],
        calls=[
            ("get_current_weather", {"city": "Dallas", "state": "TX"}),
            ("get_current_weather", {"city": "Orlando", "state": "FL"}),
        ],
    ),
    "typed values": Recorded(
        "Let me calculate that area for you.<tool_call>\n<function=calculate_area>\n<parameter=shape>\nrectangle\n"
        '</parameter>\n<parameter=dimensions>\n{"width": 10, \n "height": 20}\n</parameter>\n<parameter=precision>\n2\n'
        "</parameter>\n</function>\n</tool_call>",
        None, "qwen3_coder", declared=[AREA_TOOL], content="Let me calculate that area for you.",
        calls=[("calculate_area", {
            "shape": "rectangle", "dimensions": {"width": 10, "height": 20}, "precision": 2,
        })],
    ),
    "no outer tag": Recorded(
        "<function=get_current_weather>\n<parameter=city>\nDallas\n</parameter>\n<parameter=state>\nTX\n</parameter>\n"
        "</function>",
        None, "qwen3_coder", calls=[("get_current_weather", {"city": "Dallas", "state": "TX"})],
    ),
    "several lines": Recorded(
        "<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n"
        "<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n"
        "</parameter>\n</function>\n</tool_call>",
        None, "qwen3_coder",
        calls=[("example_function_name", {
            "example_parameter_1": "value_1",
            "example_parameter_2": "This is the value for the second parameter\nthat can span\nmultiple lines",
        })],
    ),
    "thinking not closed": Recorded(
        "I need to read the file.\n\n<tool_call>\n<function=bash>\n<parameter=command>\ncat /etc/hosts\n</parameter>\n"
        "</function>\n</tool_call>",
        "qwen3", "qwen3_coder", thinking_open=True, reasoning="I need to read the file.\n",
        calls=[("bash", {"command": "cat /etc/hosts"})],
    ),
}  # fmt: skip

# vllm-project/vllm tests/reasoning/test_deepseekr1_reasoning_parser.py
SECTION = "This is a reasoning section"
REASONING = {
    "opened by the prompt": Recorded(
        f"{SECTION}</think>This is the rest", "deepseek_r1", thinking_open=True, reasoning=SECTION,
        content="This is the rest",
    ),
    "opened by the model": Recorded(
        f"<think>{SECTION}</think>This is the rest", "deepseek_r1", reasoning=SECTION, content="This is the rest"
    ),
    "opened by both": Recorded(
        f"<think>{SECTION}</think>This is the rest", "deepseek_r1", thinking_open=True, reasoning=SECTION,
        content="This is the rest",
    ),
    "nothing but reasoning": Recorded(f"{SECTION}</think>", "deepseek_r1", thinking_open=True, reasoning=SECTION),
    "cut off": Recorded(f"<think>{SECTION}", "deepseek_r1", reasoning=SECTION),
    "no thought": Recorded(
        "</think>This is the rest", "deepseek_r1", thinking_open=True, content="This is the rest"
    ),
    "lines": Recorded(
        "<think>\nThis\nThat\n</think>\n\nThis is the rest\nThat", "deepseek_r1", reasoning="This\nThat",
        content="This is the rest\nThat",
    ),
    "line before": Recorded(
        f"\n<think>{SECTION}</think>\nThis is the rest", "deepseek_r1", reasoning=SECTION, content="This is the rest"
    ),
    "thinking switched off": Recorded(
        "Some output without think tokens", "qwen3", content="Some output without think tokens"
    ),
    "empty": Recorded("", "qwen3"),
}  # fmt: skip

# Calls that are none: the whole text is content. The first four of each format are from the files above.
V3 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>"
INVOKE = '<｜DSML｜function_calls>\n<｜DSML｜invoke name="f">\n'
VALUE_END = "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>"
NOT_CALLS = {
    "v3 bracket missing": ("deepseek_v3", V3 + 'get_weather\n```json\n{"city": "Tokyo"\n```<｜tool▁call▁end｜>'),
    "v3 marker missing": (
        "deepseek_v3",
        '<｜tool▁calls▁begin｜>function<｜tool▁sep｜>f\n```json\n{"city": "Tokyo"}\n```<｜tool▁calls▁end｜>',
    ),
    "v3 not a function": (
        "deepseek_v3", "<｜tool▁call▁begin｜>shell<｜tool▁sep｜>f\n```json\n{}\n```<｜tool▁call▁end｜>",
    ),
    "v3 single quotes": ("deepseek_v3", V3 + "f\n```json\n{'a': 1}\n```<｜tool▁call▁end｜>"),
    "v3 text after the object": ("deepseek_v3", V3 + "f\n```json\n{} no\n```<｜tool▁call▁end｜>"),
    "v3 a number": ("deepseek_v3", V3 + "f\n```json\n1\n```<｜tool▁call▁end｜>"),
    "v3 NaN": ("deepseek_v3", V3 + 'f\n```json\n{"a": NaN}\n```<｜tool▁call▁end｜>'),
    "v3.1 cut off": ("deepseek_v31", "Let me look that up.<｜tool▁calls▁begin｜>get_weather"),
    "v3.1 marker missing": ("deepseek_v31", '<｜tool▁calls▁begin｜>foo<｜tool▁sep｜>{"x":1}<｜tool▁calls▁end｜>'),
    "v3.1 no name": ("deepseek_v31", "<｜tool▁call▁begin｜><｜tool▁sep｜>{}<｜tool▁call▁end｜>"),
    "v3.1 too deep": (
        "deepseek_v31", '<｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a":' + "[" * 60 + "]" * 60 + "}<｜tool▁call▁end｜>",
    ),
    "hermes cut off": ("hermes", '<tool_call>\n{"name": "final_answer", "arguments": {"trigger": true}'),
    "hermes python": ("hermes", "<tool_call>__import__('os').system('true')</tool_call>"),
    "hermes a word in prose": ("hermes", "Write <tool_call> and then </tool_call>, or <tool_calls>."),
    "hermes no name": ("hermes", '<tool_call>{"arguments": {}}</tool_call>'),
    "hermes name twice": ("hermes", '<tool_call>{"name": "a", "name": "b"}</tool_call>'),
    "hermes name is no text": ("hermes", '<tool_call>{"name": 3, "arguments": {}}</tool_call>'),
    "hermes half a surrogate": ("hermes", '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>'),
    "hermes more than a call": ("hermes", '<tool_call>{"name": "a", "id": 1, "arguments": {}}</tool_call>'),
    "hermes arguments are a list": ("hermes", '<tool_call>{"name": "a", "arguments": []}</tool_call>'),
    "hermes bare text as arguments": ("hermes", '<tool_call>\n{"name": "f", "arguments": "hello"}\n</tool_call>'),
    "v3.2 cut off": ("deepseek_v32", INVOKE + '<｜DSML｜parameter name="a" string="true">SF'),
    "v3.2 not JSON": ("deepseek_v32", INVOKE + '<｜DSML｜parameter name="a" string="false">hello' + VALUE_END),
    "v3.2 no string attribute": ("deepseek_v32", INVOKE + '<｜DSML｜parameter name="a">1' + VALUE_END),
    "v3.2 twice": (
        "deepseek_v32", INVOKE + '<｜DSML｜parameter name="a" string="true">1</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="a" string="true">2' + VALUE_END,
    ),
    "coder cut off": ("qwen3_coder", "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n"),
    "coder value without end": (
        "qwen3_coder", "<tool_call>\n<function=f>\n<parameter=a>\nDallas\n<parameter=b>\nTX\n</parameter>\n"
        "</function>\n</tool_call>",
    ),
    "coder writes JSON": ("qwen3_coder", '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'),
    "coder twice": (
        "qwen3_coder", "<function=f><parameter=a>1</parameter><parameter=a>2</parameter></function>",
    ),
}  # fmt: skip

RECORDED = {
    f"{group}: {name}": case
    for group, cases in (
        ("deepseek", DEEPSEEK), ("hermes", HERMES), ("coder", CODER), ("reasoning", REASONING),
    )
    for name, case in cases.items()
}  # fmt: skip
