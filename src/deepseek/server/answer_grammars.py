"""What a chat's answer is held to: its format, or calls of the tools beside it, after reasoning where there is some.

A format alone would make calls impossible: agents that send both wait for calls or the final answer in the format, as
OpenAI's server gives them.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from deepseek.engine.grammars import fault_of, json_schema_of
from deepseek.errors import GenerationError
from deepseek.sampling import ComposedOutput, StructuredOutput
from deepseek.server.call_grammars import CallGrammar, can_be_held, held_to
from deepseek.server.reasoning import CLOSE

_REASONING = f'start: reasoning gap answer\nreasoning[suffix="{CLOSE}"]: /(?s:.*)/\ngap: /\\n{{0,2}}/\n'


def after_reasoning(structured: StructuredOutput) -> StructuredOutput:
    """Any text up to `</think>`, then what was wanted. Raises GenerationError where that cannot be said."""
    if isinstance(structured, ComposedOutput):
        rules, special = str(structured.grammar).removeprefix("start: answer\n"), structured.special_tokens
    elif structured.grammar is not None:
        raise GenerationError(
            "structured_outputs.grammar cannot be used while the model reasons: turn reasoning off, for example with "
            'chat_template_kwargs {"enable_thinking": false}'
        )
    else:
        rules, special = f"answer: {_format(structured)}\n", ()
    return ComposedOutput(grammar=_REASONING + rules, special_tokens=special, asked_for=structured.kind)


def leaves_bare_calls(structured: StructuredOutput) -> bool:
    """Whether a call in plain JSON cannot be an answer in the format, as far as its keys show."""
    schema = structured.json_schema
    return schema is None or not any(f'"{key}"' in str(schema) for key in ("arguments", "parameters"))


def format_or_calls(
    structured: StructuredOutput,
    functions: Sequence[Mapping[str, Any]],
    syntax: str | None,
    special: Mapping[str, int],
    *,
    several: bool,
    bare: bool,
) -> StructuredOutput:
    """An answer in the format, or calls. A grammar that the client wrote itself stays as it is: it may hold calls.

    syntax: of calls, as its parser is named; special: its marks that are special tokens. bare: calls may be plain JSON.
    """
    if structured.grammar is not None:
        return structured
    return _composed(
        structured, json.dumps(list(functions)), syntax, tuple(special.items()), several=several, bare=bare
    )


@lru_cache(maxsize=16)
def _composed(
    structured: StructuredOutput,
    functions_text: str,
    syntax: str | None,
    special: tuple[tuple[str, int], ...],
    *,
    several: bool,
    bare: bool,
) -> StructuredOutput:
    functions = json.loads(functions_text)
    answer = f"start: answer\nanswer: format | calls\nformat: {_format(structured)}\n"

    def with_calls(functions: Sequence[Mapping[str, Any]]) -> ComposedOutput:
        calls = CallGrammar(syntax, dict(special), several=several, bare=bare)
        rules = calls.rules(functions)
        return ComposedOutput(
            grammar=f"{answer}{rules}\n", special_tokens=tuple(sorted(calls.used)), asked_for=structured.kind
        )

    try:
        whole = with_calls(functions)
        fault = fault_of(whole)
    except GenerationError as error:
        fault = str(error)
    if fault is None or fault_of(structured) is not None:  # a format that is wrong is refused by the engine, by name
        return whole if fault is None else structured
    return with_calls([can_be_held(one) for one in functions])


def _format(structured: StructuredOutput) -> str:
    if structured.choice is not None:
        return " | ".join(map(json.dumps, structured.choice))
    if structured.regex is not None:
        return f"/{structured.regex.replace('/', chr(92) + '/')}/"
    return held_to(json_schema_of(structured))
