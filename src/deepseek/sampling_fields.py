"""Settings given by name, as `generate` of both executors takes them: other spellings, and hints for unknown ones."""

from collections.abc import Iterable, Mapping
from typing import Any

from deepseek.errors import GenerationError
from deepseek.sampling import SamplingParams
from deepseek.sampling_names import LENGTH_ALIASES, SAMPLING_ALIASES, unknown_name

ALIASES: Mapping[str, str] = {
    **SAMPLING_ALIASES,
    **LENGTH_ALIASES,
    "max_completion_tokens": "max_tokens",
    "structured_outputs": "structured",
    "guided_decoding": "structured",
}
GUIDED: Mapping[str, str] = {
    "guided_json": "json_schema",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
}
"""vLLM's fields for structured output, and ours."""


def sampling_params(
    params: SamplingParams | None, fields: Mapping[str, Any], also: Iterable[str] = ()
) -> SamplingParams:
    """One object, or its fields by name. also: names that the caller knows besides, for the hint.

    Raises GenerationError.
    """
    if params is not None and not isinstance(params, SamplingParams):
        raise GenerationError(
            f"params must be SamplingParams, or its fields by name (max_tokens=64, temperature=0), not {params!r:.100}"
        )
    if params is not None and fields:
        raise GenerationError(f"give params or single fields, not both: {', '.join(sorted(fields))}")
    return params or SamplingParams(**_known(fields, also))


def beneath(recommended: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, and what is recommended where they say nothing under any name."""
    given = {_own(name, value)[0] for name, value in fields.items()}
    return {**{name: value for name, value in recommended.items() if name not in given}, **fields}


def params_for_each(
    params: object, fields: Mapping[str, Any], count: int, also: Iterable[str] = ()
) -> list[SamplingParams]:
    """As `sampling_params`, or a list with one object for each of `count` prompts."""
    if not isinstance(params, list | tuple):
        return [sampling_params(params, fields, also)] * count  # type: ignore[arg-type]
    if len(params) != count:
        raise GenerationError(f"there are {count} prompts and {len(params)} params: give one for each prompt, or one")
    return [sampling_params(each, fields, also) for each in params]


def _known(fields: Mapping[str, Any], also: Iterable[str]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for name, value in fields.items():
        if name == "do_sample" and value in (True, None):
            continue
        own, value = _own(name, value)
        if own not in SamplingParams.__dataclass_fields__:
            raise GenerationError(unknown_name(name, [*SamplingParams.__dataclass_fields__, *also]))
        if own in known:
            raise GenerationError(f"{spelled[own]} and {name} are two names of one setting: give one of them")
        known[own], spelled[own] = value, name
    return known


def _own(name: str, value: Any) -> tuple[str, Any]:
    if name in GUIDED:
        return "structured", None if value is None else {GUIDED[name]: value}
    if name == "do_sample" and value is False:  # Transformers' word for greedy
        return "temperature", 0.0
    return ALIASES.get(name, name), value
