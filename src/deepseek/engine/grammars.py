"""From what a request asks for to a grammar that llguidance compiles, within bounds."""

import json
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from deepseek.engine.json_schemas import has_finite_value, prepared
from deepseek.errors import GenerationError
from deepseek.sampling import ComposedOutput, StructuredOutput

LIMITS: dict[str, Any] = {
    "max_items_in_row": 2000,
    "initial_lexer_fuel": 300_000,
    "step_lexer_fuel": 50_000,
    "step_max_items": 50_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 200_000,
    "verbose_errors": False,
}
"""Of llguidance; with them one step of a hostile grammar costs some milliseconds, rarely a third of a second."""
TRIAL_CPU_SECONDS = 2
_TRIAL_BYTES = 2**30
_TRIAL_DEADLINE = 20
_PLAIN_SCHEMA_CHARACTERS = 64 * 1024
_COSTLY = re.compile(r'"(pattern|patternProperties|propertyNames|format|multipleOf|allOf|\$ref|\$dynamicRef)"')
_SPECIAL_TOKEN = re.compile(r"<\[\d+\]>")  # the trial's own vocabulary is small
_LONG_REPEAT = re.compile(r"\{\d*,?\d{3,}\}")
JSON_OPTIONS: Any = {
    "whitespace_flexible": False,
    "whitespace_pattern": r" |\r?\n[ \t]{0,32}",
    "coerce_one_of": False,
    "lenient": False,
    "json_allow_general_unicode_escapes": True,
}
"""Between two parts of JSON a model may write what it is used to: nothing, one blank, or one line break and an indent.
Without them it makes mistakes (docs/decisions/029); with any number of them it may write blanks for ever."""


def json_schema_of(wanted: StructuredOutput) -> dict[str, Any]:
    """The schema of an answer in JSON, as llguidance takes it. Raises GenerationError."""
    schema: Any = {"type": "object"} if wanted.json_object else json.loads(str(wanted.json_schema))
    if schema is True:
        return {}
    try:
        ready = prepared(schema)
        if not has_finite_value(ready):
            raise ValueError("it refers to itself without end, so no answer could be complete")
    except (ValueError, RecursionError) as error:
        raise GenerationError(f"{wanted.kind} cannot be read: {error!s:.300}") from None
    return ready


def grammar_of(wanted: StructuredOutput) -> str:
    """The grammar in llguidance's own format; not compiled, but tried where compiling it could take long."""
    from llguidance import LLMatcher

    field = wanted.kind
    try:
        if wanted.json_schema is not None or wanted.json_object:
            schema = json.dumps(json_schema_of(wanted), ensure_ascii=False)
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides=JSON_OPTIONS)
            costly = len(schema) > _PLAIN_SCHEMA_CHARACTERS or _COSTLY.search(schema) is not None
        elif wanted.regex is not None:
            grammar = LLMatcher.grammar_from_regex(wanted.regex)
            costly = _LONG_REPEAT.search(wanted.regex) is not None
        elif wanted.choice is not None:
            grammar = LLMatcher.grammar_from_lark("start: " + " | ".join(map(json.dumps, wanted.choice)))
            costly = False
        elif isinstance(wanted, ComposedOutput):
            text = str(wanted.grammar)
            grammar = LLMatcher.grammar_from_lark(text)
            costly = len(text) > _PLAIN_SCHEMA_CHARACTERS or any(one.search(text) for one in (_COSTLY, _LONG_REPEAT))
        else:
            grammar, costly = LLMatcher.grammar_from_lark(_lark(str(wanted.grammar))), True
    except (ValueError, RecursionError) as error:
        raise GenerationError(f"{field} cannot be read: {error!s:.300}") from None
    if costly:
        _try(grammar, field)
    return grammar


def fault_of(wanted: StructuredOutput) -> str | None:
    """Why no answer can be held to this, told without a vocabulary; None if it can."""
    from llguidance import LLMatcher

    try:
        fault: str = LLMatcher.validate_grammar(grammar_of(wanted))
    except GenerationError as error:
        return str(error)
    return fault or None


def _lark(text: str) -> str:
    from llguidance.gbnf_to_lark import GbnfToLarkError, any_to_lark

    try:
        return any_to_lark(text)
    except GbnfToLarkError as error:
        raise ValueError(str(error)) from None


@lru_cache(maxsize=128)
def _try(grammar: str, field: str) -> None:
    """Raises GenerationError if compiling would take too long."""
    task: dict[str, Any] = {
        "grammar": _SPECIAL_TOKEN.sub("<[0]>", grammar), "limits": LIMITS, "cpu_seconds": TRIAL_CPU_SECONDS,
        "bytes": _TRIAL_BYTES,
    }  # fmt: skip
    script = Path(__file__).with_name("grammar_trial.py")
    try:
        result = subprocess.run(
            [sys.executable, "-I", str(script)], input=json.dumps(task) + "\n", text=True, capture_output=True,
            timeout=_TRIAL_DEADLINE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        ended = False
    else:
        ended = result.returncode == 0
    if not ended:
        raise GenerationError(
            f"{field} takes more than {TRIAL_CPU_SECONDS} seconds or {_TRIAL_BYTES >> 30} GiB to compile: use fewer or "
            "simpler patterns, allOf and multipleOf"
        )
