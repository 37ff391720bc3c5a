"""Grammars of tool calls, as a chat template tells its model to write them and the parsers here read them.

One rule set in llguidance's Lark for each syntax, with the rule `calls`: one call or several, each of a given function
and with arguments that its parameters allow. Parameters that no grammar can hold to may be any object.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deepseek.engine.grammars import JSON_OPTIONS, fault_of, json_schema_of
from deepseek.errors import GenerationError
from deepseek.sampling import StructuredOutput
from deepseek.server.forced_calls import MOST_CALLS, parameters_of, schema_of_calls
from deepseek.server.parsing import NAME, types_of

Function = Mapping[str, Any]
_MARKS = (
    "<tool_call>", "</tool_call>", "<function=", "</function>", "<parameter=", "</parameter>", "｜DSML｜",
    "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>",
)  # fmt: skip
_BLANKS = r"/[ \t\r\n]{0,8}/"
_ANY_OBJECT: dict[str, Any] = {"type": "object"}
_REGEX_SPECIAL = re.compile(r"[.*+?()\[\]{}|^$\\/]")


class CallGrammar:
    """The rules for one syntax over one vocabulary.

    special: marks of call syntaxes that are special tokens, with their ids: no text can be such a token.
    """

    def __init__(self, syntax: str | None, special: Mapping[str, int], *, several: bool, bare: bool) -> None:
        """syntax: as the parsers are named. bare: plain JSON may be a call, too."""
        self._syntax = syntax
        self._special = special
        self._several = several
        self._bare = bare
        self.used: set[int] = set()
        """Special tokens in the rules."""

    def rules(self, functions: Sequence[Function]) -> str:
        """The rule `calls` and all it needs."""
        named = [one for one in functions if NAME.fullmatch(one["name"])]
        forms = []
        lines = [f"blanks: {_BLANKS}"]
        if self._bare or self._syntax is None:
            schema = json_schema_of(schema_of_calls(functions, several=False))
            forms.append("bare")
            lines.append(f"bare: {held_to(schema)}")
            if self._several:
                forms.append("list")
                lines.append(f"list: {held_to(json_schema_of(schema_of_calls(functions, several=True)))}")
        write: dict[str, Callable[[Sequence[Function]], list[str]]] = {
            "hermes": self._hermes, "qwen3_coder": self._coder, "deepseek_v3": self._deepseek_v3,
            "deepseek_v31": self._deepseek_v31, "deepseek_v32": self._dsml,
        }  # fmt: skip
        if self._syntax is not None and named:
            forms.append("written")
            lines += write[self._syntax](named)
        return "\n".join([f"calls: {' | '.join(forms)}", *lines])

    def _hermes(self, functions: Sequence[Function]) -> list[str]:
        call = held_to(json_schema_of(schema_of_calls(functions, several=False)))
        return [
            f"written: {self._repeated('call', 'blanks')}",
            f"call: {self._text('<tool_call>')} blanks {call} blanks {self._text('</tool_call>')}",
        ]

    def _deepseek_v3(self, functions: Sequence[Function]) -> list[str]:
        return self._deepseek([
            self._text(f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{one['name']}\n```json\n")
            + f" {_arguments(one)} "
            + self._text("\n```<｜tool▁call▁end｜>")
            for one in functions
        ])  # fmt: skip

    def _deepseek_v31(self, functions: Sequence[Function]) -> list[str]:
        return self._deepseek([
            self._text(f"<｜tool▁call▁begin｜>{one['name']}<｜tool▁sep｜>")
            + f" {_arguments(one)} "
            + self._text("<｜tool▁call▁end｜>")
            for one in functions
        ])  # fmt: skip

    def _deepseek(self, calls: list[str]) -> list[str]:
        begin, end = self._text("<｜tool▁calls▁begin｜>"), self._text("<｜tool▁calls▁end｜>")
        return [
            f"written: {begin} blanks {self._repeated('call', 'blanks')} blanks {end}", f"call: {' | '.join(calls)}"
        ]  # fmt: skip

    def _coder(self, functions: Sequence[Function]) -> list[str]:
        lines = [
            f"written: {self._repeated('call', 'blanks')}",
            f"call: {self._text('<tool_call>')} blanks function blanks {self._text('</tool_call>')}",
        ]
        calls = []
        for place, function in enumerate(functions):
            values = self._values(function, f"value_{place}_", self._coder_value, lines)
            opening = self._text(f"<function={function['name']}>")
            calls.append(f"{opening} {values} blanks {self._text('</function>')}")
        return [*lines, f"function: {' | '.join(calls)}"]

    def _coder_value(self, rule: str, key: str, schema: Any, lines: list[str]) -> str:
        is_text, options = _kind(schema)
        opening = f"blanks {self._text(f'<parameter={key}>')}"
        if options:
            choice = " | ".join(_text(f"\n{text}\n") for text in options)
            return f"{opening} ({choice}) {self._text('</parameter>')}"
        line = _text("\n")
        if not is_text:
            return f"{opening} {line} {held_to(schema)} {line} {self._text('</parameter>')}"
        # a value in which another parameter seems to begin would be read as no call
        lines += self._free_text(rule, _any_text(schema), "\n</parameter>", without="\n<parameter=")
        return f"{opening} {line} {rule}"

    def _dsml(self, functions: Sequence[Function]) -> list[str]:
        lines: list[str] = []
        calls = []
        for place, function in enumerate(functions):
            values = self._values(function, f"value_{place}_", self._dsml_value, lines)
            opening = self._text(f'<｜DSML｜invoke name="{function["name"]}">')
            calls.append(f"{opening} {values} blanks {self._text('</｜DSML｜invoke>')}")
        begin, end = self._text("<｜DSML｜function_calls>"), self._text("</｜DSML｜function_calls>")
        return [
            f"written: blanks {begin} blanks {self._repeated('call', 'blanks')} blanks {end}", *lines,
            f"call: {' | '.join(calls)}",
        ]  # fmt: skip

    def _dsml_value(self, rule: str, key: str, schema: Any, lines: list[str]) -> str:
        is_text, options = _kind(schema)
        opening = self._text(f'<｜DSML｜parameter name="{key}" string="{str(is_text).lower()}">')
        opening = f"blanks {opening}"
        closing = "</｜DSML｜parameter>"
        if options:
            return f"{opening} ({' | '.join(map(_text, options))}) {self._text(closing)}"
        if not is_text:
            return f"{opening} {held_to(schema)} {self._text(closing)}"
        lines += self._free_text(rule, _any_text(schema), closing)
        return f"{opening} {rule}"

    def _values(
        self, function: Function, prefix: str, write: Callable[[str, str, Any, list[str]], str], lines: list[str]
    ) -> str:
        """All parameters in their order, those that are not required perhaps left out."""
        root = json_schema_of(StructuredOutput(json_schema=parameters_of(function)))
        shared = {key: root[key] for key in ("$defs", "definitions") if key in root}
        required = root.get("required", [])
        values = []
        for place, (key, schema) in enumerate(root.get("properties", {}).items()):
            if not NAME.fullmatch(key):
                continue
            schema = {**schema, **shared} if isinstance(schema, dict) else {}
            value = write(f"{prefix}{place}", key, schema, lines)
            values.append(f"({value})" if key in required else f"({value})?")
        return " ".join(values)

    def _free_text(self, rule: str, pattern: str, closing: str, without: str = "") -> list[str]:
        """Lines for `rule`: text that ends with the first `closing`."""
        if any(mark in closing for mark in self._special):
            before, mark, after = self._split(closing)
            return [f"{rule}: {rule}_text {mark} {after}", f"{rule}_text: /(?s:{pattern}{_escaped(before)})/"]
        name = rule.upper()
        excluded = f" & ~/(?s:.*{_escaped(without)}.*)/" if without else ""
        return [f"{rule}[lazy]: {name}", f"{name}: /(?s:{pattern}{_escaped(closing)})/{excluded}"]

    def _split(self, closing: str) -> tuple[str, str, str]:
        mark = next(mark for mark in self._special if mark in closing)
        before, _, after = closing.partition(mark)
        self.used.add(self._special[mark])
        return before, f"<[{self._special[mark]}]>", _text(after) if after else ""

    def _repeated(self, rule: str, between: str) -> str:
        return f"{rule} ({between} {rule}){{0,{MOST_CALLS - 1}}}" if self._several else rule

    def _text(self, text: str) -> str:
        """This text, where some of it may be special tokens."""
        if not self._special:
            return _text(text)
        parts = re.split(f"({'|'.join(map(re.escape, self._special))})", text)
        self.used.update(self._special[part] for part in parts if part in self._special)
        return " ".join(f"<[{self._special[one]}]>" if one in self._special else _text(one) for one in parts if one)


def special_marks(tokenizer: Any) -> dict[str, int]:
    """Those marks of call syntaxes that are special tokens of this tokenizer."""
    found = {mark: tokenizer.token_to_id(mark) for mark in _MARKS}
    return {mark: token for mark, token in found.items() if token in tokenizer.special_ids}


def held_to(schema: Mapping[str, Any]) -> str:
    """JSON valid under a schema that is `prepared`, as part of a rule."""
    return f"%json {json.dumps({**schema, 'x-guidance': JSON_OPTIONS}, ensure_ascii=False)}"


def can_be_held(function: Function) -> Function:
    """The function, with parameters that a grammar can hold an answer to."""
    schema = parameters_of(function)
    try:
        fault = fault_of(StructuredOutput(json_schema=schema))
    except GenerationError as error:
        fault = str(error)
    return {**function, "parameters": {**_ANY_OBJECT, "additionalProperties": True}} if fault else function


def _arguments(function: Function) -> str:
    return held_to(json_schema_of(StructuredOutput(json_schema=parameters_of(function))))


def _text(text: str) -> str:
    return json.dumps(text)


def _escaped(text: str) -> str:
    return _REGEX_SPECIAL.sub(r"\\\g<0>", text).replace("\n", r"\n")


def _any_text(schema: Mapping[str, Any]) -> str:
    most = schema.get("maxLength")
    return f".{{0,{most}}}" if isinstance(most, int) and 0 <= most < 1000 else ".*"


def _kind(schema: Mapping[str, Any]) -> tuple[bool, list[str]]:
    """Whether a value is written as a text without quotes, and the only texts that it may be."""
    options = schema.get("enum", [schema["const"]] if "const" in schema else [])
    texts = bool(options) and all(isinstance(one, str) for one in options)
    types = types_of(schema)
    is_text = "string" in types or not types and texts and not schema.get("$ref")
    return is_text, list(options) if is_text and texts else []
